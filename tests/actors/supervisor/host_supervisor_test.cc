#include "actors/supervisor/host_supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "actors/wire/control_channel.h"
#include "comm/cluster/tls_relay.h"
#include "comm/codec/codec.h"
#include "tests/comm/cluster/cluster_hosts.h"
#include "tests/temp_dir.h"

namespace lorikeet::actors {
namespace {

bool wait_for(const std::function<bool()>& condition) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(tests::kPatienceMs);
  while (!condition() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  return condition();
}

// A port before the head's door that connections pass, or are held at: they are accepted, and nothing comes of them.
class Barrier {
 public:
  explicit Barrier(uint16_t to) : to_(to), listening_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    EXPECT_EQ(bind(listening_.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(listen(listening_.get(), 16), 0);
    EXPECT_EQ(getsockname(listening_.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    port_ = ntohs(at.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Barrier() {
    end();
    thread_.join();
    for (std::thread& carrier : carriers_) carrier.join();
  }

  uint16_t port() const { return port_; }
  void hold() { holds_ = true; }

  size_t held() {
    const std::lock_guard lock(mutex_);
    return held_.size();
  }
  // Whether whoever dialled has ended the connection that is held.
  bool was_given_up() {
    const std::lock_guard lock(mutex_);
    for (;;) {
      char bytes[4096];
      const ssize_t got = recv(held_.front().get(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got <= 0) return got == 0 || errno != EAGAIN;
    }
  }
  // Nobody comes in any more, and who is held need not wait.
  void end() {
    shutdown(listening_.get(), SHUT_RDWR);
    const std::lock_guard lock(mutex_);
    ended_ = true;
    held_.clear();
    for (const auto& [one, other] : passed_) {
      shutdown(one.get(), SHUT_RDWR);
      shutdown(other.get(), SHUT_RDWR);
    }
  }

 private:
  void run() {
    for (;;) {
      Descriptor come(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!come) return;
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      if (holds_) {
        held_.push_back(std::move(come));
        continue;
      }
      const auto& [near, far] = passed_.emplace_back(std::move(come), tests::stranger(to_));
      const int one = near.get(), other = far.get();
      carriers_.emplace_back([one, other] { carry(one, other); });
      carriers_.emplace_back([one, other] { carry(other, one); });
    }
  }

  static void carry(int from, int to) {
    char bytes[4096];
    for (ssize_t got = 0; (got = recv(from, bytes, sizeof(bytes), 0)) > 0;) {
      if (send(to, bytes, static_cast<size_t>(got), MSG_NOSIGNAL) != got) break;
    }
    shutdown(to, SHUT_WR);
  }

  const uint16_t to_;
  const Descriptor listening_;
  uint16_t port_ = 0;
  std::atomic<bool> holds_{false};
  std::mutex mutex_;  // guards what follows
  bool ended_ = false;
  std::list<Descriptor> held_;
  std::list<std::pair<Descriptor, Descriptor>> passed_;
  std::list<std::thread> carriers_;
  std::thread thread_;
};

// A worker whose ranks are a script that says which process it is.
class HostSupervisorTest : public ::testing::Test {
 protected:
  HostSupervisorTest() {
    const std::filesystem::path script = dir_ / "rank.sh";
    std::ofstream(script) << "#!/bin/sh\necho $$ > " << (dir_ / "pid").string() << "\nexec sleep 1000\n";
    std::filesystem::permissions(script, std::filesystem::perms::owner_all);
    WorkerOptions options;
    options.master_addr = "127.0.0.1";
    options.master_port = barrier_.port();
    options.directory = (keys_ / "worker").string();
    options.devices = {"cpu", "", {0, 1}};
    options.name = "a host";
    options.download_dir = (dir_ / "downloads").string();
    auto worker = start_host_supervisor(
        options, [](const std::string&) {}, script.string());
    EXPECT_TRUE(worker) << worker.error().message;
    if (worker) worker_ = *std::move(worker);
  }

  // What the next connection is for.
  template <class Words>
  std::optional<comm::TlsConnection> connection_for() {
    auto come = door_.admitted();
    if (!come) return std::nullopt;
    const auto words = comm::decode<JoinRequest>(come->second);
    if (!words || !std::holds_alternative<Words>(*words)) return std::nullopt;
    return std::move(come->first);
  }

  // The link, admitted.
  void admit() {
    auto link = connection_for<host::Join>();
    ASSERT_TRUE(link);
    auto ends = comm::TlsRelay::make_ends();
    ASSERT_TRUE(ends);
    relay_->add(*std::move(link), std::move(ends->first));
    link_ = std::make_unique<ControlChannel>(ends->second.release());
    ASSERT_TRUE(link_->send(HostOrder(host::Admitted{"", "a secret", 1, 500})));
  }

  void start_rank(uint64_t child, int32_t rank, const std::string& model) {
    host::StartRank order;
    order.child = child;
    order.start.rank = rank;
    order.start.epoch = 1;
    order.start.options.model = model;
    ASSERT_TRUE(link_->send(HostOrder(order)));
  }

  int pid() const {
    int pid = 0;
    std::ifstream(dir_ / "pid") >> pid;
    return pid;
  }

  const tests::ClusterKeys keys_;
  tests::Door door_{keys_};
  Barrier barrier_{door_.port()};
  const tests::TempDir dir_;
  std::unique_ptr<comm::TlsRelay> relay_ = comm::TlsRelay::start().value();
  std::unique_ptr<ControlChannel> link_;
  std::unique_ptr<Server> worker_;  // ends first
};

const std::string kModel = std::string(LORIKEET_SOURCE_DIR) + "/examples/models/tiny-qwen2-gptq-int4";

TEST_F(HostSupervisorTest, EndsItsRanksWhileAFetchIsHeldUp) {
  ASSERT_NO_FATAL_FAILURE(admit());
  ASSERT_NO_FATAL_FAILURE(start_rank(1, 0, kModel));
  ASSERT_TRUE(connection_for<host::ConnectRank>()) << "this host has the checkpoint";
  ASSERT_TRUE(wait_for([this] { return pid() > 0; }));
  barrier_.hold();
  ASSERT_NO_FATAL_FAILURE(start_rank(2, 1, "/nowhere/model"));
  ASSERT_TRUE(wait_for([this] { return barrier_.held() == 1; })) << "it asks for its part";
  link_.reset();
  EXPECT_TRUE(wait_for([this] { return kill(pid(), 0) != 0 && errno == ESRCH; }));
  EXPECT_FALSE(barrier_.was_given_up()) << "the rank has waited for the dial of another one's part";
  barrier_.end();
}

// Such as a download that was interrupted.
TEST_F(HostSupervisorTest, GetsItsPartWhereACheckpointIsThereByHalf) {
  const std::filesystem::path half = dir_ / "half";
  std::filesystem::create_directories(half);
  std::filesystem::copy(kModel + "/config.json", half);
  ASSERT_NO_FATAL_FAILURE(admit());
  ASSERT_NO_FATAL_FAILURE(start_rank(1, 0, half.string()));
  EXPECT_TRUE(connection_for<host::ReadCheckpoint>());
  barrier_.end();
}

}  // namespace
}  // namespace lorikeet::actors
