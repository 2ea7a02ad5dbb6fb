// The head's end of the ranks' connections in this process, the other ends in processes of their own or in bare hands.
#include "actors/wire/caf_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <thread>

#include "actors/wire/system_config.h"

namespace lorikeet::actors {
namespace {

using std::chrono::seconds;

std::pair<Descriptor, Descriptor> make_ends() {
  std::array<int, 2> ends{};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

ServerOptions slow_heartbeats() {
  ServerOptions options;
  options.heartbeat_ms = 60'000;  // so that nothing here is noticed by them
  return options;
}

WorkerForHead::behavior_type idle_worker(WorkerForHead::pointer) {
  return {[](Envelope&) {}};
}

// A rank's process; the test tells it what to do once it is connected.
class Peer {
 public:
  using Body = std::function<void(caf::scoped_actor& self, const SchedulerForRanks& head)>;

  // Forks: before this process has threads.
  Peer(Descriptor& connection, const Body& body) : pid_(fork()) {
    if (pid_ != 0) {
      connection.reset();
      return;
    }
    SystemConfig config(slow_heartbeats(), Networking::connected, 1);
    caf::actor_system system{config};
    caf::scoped_actor self{system};
    SchedulerForRanks head;
    self->request(basp_broker(system), seconds(30), caf::connect_atom_v, make_scribe(system, std::move(connection)),
                  uint16_t{1})
        .receive([&](caf::node_id&, caf::strong_actor_ptr& published,
                     std::set<std::string>&) { head = caf::actor_cast<SchedulerForRanks>(published); },
                 [](caf::error&) { _exit(1); });
    body(self, head);
    for (;;) pause();
  }
  ~Peer() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// What the head has heard, in the order of its happening; the rank is that of the connection.
struct Heard {
  std::string what;
  std::optional<int32_t> connected_as;
  int32_t says_rank = 0;
  WorkerForHead worker;
};

class Inbox {
 public:
  void push(Heard heard) {
    {
      const std::lock_guard lock(mutex_);
      heard_.push_back(std::move(heard));
    }
    wake_.notify_one();
  }
  Heard next() {
    std::unique_lock lock(mutex_);
    if (!wake_.wait_for(lock, seconds(60), [this] { return !heard_.empty(); })) return {"nothing", {}, 0, {}};
    Heard heard = std::move(heard_.front());
    heard_.pop_front();
    return heard;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Heard> heard_;
};

SchedulerForRanks::behavior_type listener(SchedulerForRanks::pointer self, Inbox* inbox,
                                          std::shared_ptr<PeerRanks> peers) {
  const auto sender = [self, peers] { return peers->rank_of(self->current_sender()->node()); };
  self->set_down_handler([inbox](const caf::down_msg&) { inbox->push({"down", {}, 0, {}}); });
  return {[self, inbox, sender](Hello& hello, WorkerForHead& worker) {
            self->monitor(worker);
            inbox->push({"hello", sender(), hello.rank, worker});
            return Welcome{"no handles here", {}, {}};
          },
          [inbox, sender](Envelope& envelope) {
            inbox->push({"envelope", sender(), envelope.rank, {}});
          }};
}

void say_hello(caf::scoped_actor& self, const SchedulerForRanks& head, int32_t rank, const WorkerForHead& worker) {
  self->request(head, seconds(30), Hello{rank, getpid(), 1, "host", "cpu"}, worker)
      .receive([](Welcome&) {}, [](caf::error&) { _exit(1); });
}

class CafConnectionTest : public ::testing::Test {
 protected:
  // After the peers have been forked.
  void start_head() {
    system_.emplace(config_);
    head_ = system_->spawn(listener, &inbox_, peers_);
  }
  void offer(Descriptor connection, int32_t rank) {
    offer_to_rank(*system_, std::move(connection), rank, peers_, head_);
  }
  void TearDown() override {
    if (system_) caf::anon_send_exit(head_, caf::exit_reason::user_shutdown);
  }

  // Until the head's end has been closed; what came before is dropped. False: it never was.
  static bool ends(const Descriptor& socket) {
    const timeval patience{60, 0};
    setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    std::array<char, 4096> bytes{};
    for (;;) {
      const ssize_t got = recv(socket.get(), bytes.data(), bytes.size(), 0);
      if (got == 0 || (got < 0 && errno == ECONNRESET)) return true;
      if (got < 0) return false;
    }
  }

  static size_t open_descriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  Inbox inbox_;
  std::shared_ptr<PeerRanks> peers_ = std::make_shared<PeerRanks>();
  SystemConfig config_{slow_heartbeats(), Networking::connected, 2};
  std::optional<caf::actor_system> system_;
  SchedulerForRanks head_;
};

TEST_F(CafConnectionTest, CarriesMessagesAndTellsAtOnceThatThePeerIsDead) {
  auto [near, far] = make_ends();
  Peer peer(far, [](caf::scoped_actor& self, const SchedulerForRanks& head) {
    const WorkerForHead worker = self->spawn(idle_worker);
    say_hello(self, head, 3, worker);
    caf::send_as(worker, head, Envelope{EnvelopeStream::group, 3, 1, 0, true, std::vector<uint8_t>(kEnvelopeBytes)});
    for (;;) pause();
  });
  start_head();
  offer(std::move(near), 3);
  const Heard hello = inbox_.next();
  EXPECT_EQ(hello.what, "hello");
  EXPECT_EQ(hello.connected_as, 3);
  const Heard envelope = inbox_.next();
  EXPECT_EQ(envelope.what, "envelope");
  EXPECT_EQ(envelope.connected_as, 3);
  kill(peer.pid(), SIGKILL);
  EXPECT_EQ(inbox_.next().what, "down");
}

TEST_F(CafConnectionTest, KnowsAProcessThatPosesAsAnotherRankByItsConnection) {
  auto [near_zero, far_zero] = make_ends();
  auto [near_one, far_one] = make_ends();
  Peer rank_zero(far_zero, [](caf::scoped_actor& self, const SchedulerForRanks& head) {
    say_hello(self, head, 0, self->spawn(idle_worker));
    for (;;) pause();
  });
  Peer rank_one(far_one, [](caf::scoped_actor& self, const SchedulerForRanks& head) {
    const WorkerForHead worker = self->spawn(idle_worker);
    say_hello(self, head, 0, worker);
    caf::send_as(worker, head, Envelope{EnvelopeStream::group, 0, 1, 0, true, {}});
    for (;;) pause();
  });
  start_head();
  offer(std::move(near_zero), 0);
  EXPECT_EQ(inbox_.next().connected_as, 0);
  offer(std::move(near_one), 1);
  const Heard hello = inbox_.next(), envelope = inbox_.next();
  EXPECT_EQ(hello.says_rank, 0);
  EXPECT_EQ(hello.connected_as, 1);
  EXPECT_EQ(envelope.says_rank, 0);
  EXPECT_EQ(envelope.connected_as, 1);
}

TEST_F(CafConnectionTest, CutsAPeerThatDoesNotReadBeforeItsQueueGrowsWithoutBound) {
  auto [near, far] = make_ends();
  Peer peer(far, [](caf::scoped_actor& self, const SchedulerForRanks& head) {
    say_hello(self, head, 0, self->spawn(idle_worker));
    raise(SIGSTOP);
  });
  start_head();
  offer(std::move(near), 0);
  const Heard hello = inbox_.next();
  ASSERT_EQ(hello.what, "hello");
  int status = 0;
  ASSERT_EQ(waitpid(peer.pid(), &status, WUNTRACED), peer.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  for (size_t sent = 0; sent <= kMaxPeerBytes + (8 << 20); sent += kEnvelopeBytes) {
    caf::anon_send(hello.worker, Envelope{EnvelopeStream::steps, 0, 1, 1, true, std::vector<uint8_t>(kEnvelopeBytes)});
  }
  EXPECT_EQ(inbox_.next().what, "down");
}

TEST_F(CafConnectionTest, EndsAConnectionThatBringsWhatNoPeerSends) {
  const auto header = [](uint8_t operation, uint32_t length) {
    std::vector<uint8_t> bytes(32, 0);
    bytes[0] = operation;
    for (int i = 0; i < 4; ++i) bytes[static_cast<size_t>(4 + i)] = static_cast<uint8_t>(length >> (24 - 8 * i));
    return bytes;
  };
  start_head();
  const std::vector<std::vector<uint8_t>> forged = {
      header(2, 0xFFFF'FFFF),            // announces 4 GiB
      header(1, 0),                      // a handshake without its payload
      header(200, 10),                   // an operation that is none
      header(3, 10),                     // a message in somebody else's name
      std::vector<uint8_t>(1000, 0xA5),  // rubbish
  };
  for (const auto& bytes : forged) {
    auto [near, far] = make_ends();
    offer(std::move(near), 0);
    ASSERT_EQ(send(far.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    EXPECT_TRUE(ends(far)) << int{bytes[0]};
  }
}

TEST_F(CafConnectionTest, LeavesNoDescriptorBehind) {
  start_head();
  const auto cycle = [this] {
    auto [near, far] = make_ends();
    offer(std::move(near), 0);
    shutdown(far.get(), SHUT_WR);
    EXPECT_TRUE(ends(far));
  };
  cycle();  // what the system opens once is open now
  const size_t before = open_descriptors();
  for (int i = 0; i < 100; ++i) cycle();
  // The last end is closed on the I/O thread.
  const auto limit = std::chrono::steady_clock::now() + seconds(60);
  while (open_descriptors() > before && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  EXPECT_LE(open_descriptors(), before);
}

}  // namespace
}  // namespace lorikeet::actors
