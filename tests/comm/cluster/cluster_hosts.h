// The two sides of a cluster's door for tests: certificates in a directory of their own, a listener, and strangers.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/cluster/keys.h"
#include "comm/cluster/tls_dial.h"
#include "comm/cluster/tls_listener.h"
#include "tests/temp_dir.h"

namespace lorikeet::tests {

inline constexpr int kPatienceMs = 60'000;  // for what must happen; a test that waits so long fails

// Certificates in a temporary directory. Who has them writes to hosts that go away: as in servers and workers, SIGPIPE
// is ignored from here on.
class ClusterKeys {
 public:
  explicit ClusterKeys(int days = 30) {
    std::signal(SIGPIPE, SIG_IGN);
    const auto made = comm::make_cluster_keys(dir_.path(), days);
    EXPECT_TRUE(made) << made.error().message;
  }

  std::filesystem::path operator/(const std::string& name) const { return dir_ / name; }
  std::string token() const { return *comm::read_join_token(dir_.path() / "worker" / "token"); }
  std::shared_ptr<const comm::TlsContext> head() const { return load("head", comm::ClusterRole::head); }
  std::shared_ptr<const comm::TlsContext> worker() const { return load("worker", comm::ClusterRole::worker); }

 private:
  std::shared_ptr<const comm::TlsContext> load(const char* name, comm::ClusterRole role) const {
    auto context = comm::TlsContext::load(dir_ / name, role);
    EXPECT_TRUE(context) << context.error().message;
    return context ? *context : nullptr;
  }

  TempDir dir_;
};

// A head's door at a port of this host, and what has come in.
class Door {
 public:
  explicit Door(const ClusterKeys& keys, comm::AdmissionLimits limits = {}) {
    auto listener = comm::TlsListener::open("127.0.0.1", 0, keys.head(), keys.token(), limits);
    EXPECT_TRUE(listener) << listener.error().message;
    listener_ = *std::move(listener);
    listener_->start({[this](comm::TlsConnection connection, std::vector<uint8_t> words) {
                        const std::lock_guard lock(mutex_);
                        admitted_.emplace_back(std::move(connection), std::move(words));
                        changed_.notify_all();
                      },
                      [this](const std::string& why) {
                        const std::lock_guard lock(mutex_);
                        refusals_.push_back(why);
                        changed_.notify_all();
                      }});
  }

  uint16_t port() const { return listener_->port(); }

  comm::DialOptions options(const ClusterKeys& keys) const {
    comm::DialOptions options;
    options.host = "127.0.0.1";
    options.port = port();
    options.token = keys.token();
    options.timeout = std::chrono::milliseconds(kPatienceMs);
    return options;
  }

  // The next one that was admitted; nullopt: nobody in time.
  std::optional<std::pair<comm::TlsConnection, std::vector<uint8_t>>> admitted() {
    std::unique_lock lock(mutex_);
    if (!wait(lock, [this] { return !admitted_.empty(); })) return std::nullopt;
    auto next = std::move(admitted_.front());
    admitted_.erase(admitted_.begin());
    return next;
  }
  size_t waiting() {
    const std::lock_guard lock(mutex_);
    return admitted_.size();
  }
  // The first sentence about those that were not; empty: none in time.
  std::string refusal() {
    std::unique_lock lock(mutex_);
    return wait(lock, [this] { return !refusals_.empty(); }) ? refusals_.front() : "";
  }

 private:
  template <class Condition>
  bool wait(std::unique_lock<std::mutex>& lock, Condition condition) {
    return changed_.wait_for(lock, std::chrono::milliseconds(kPatienceMs), condition);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<comm::TlsConnection, std::vector<uint8_t>>> admitted_;
  std::vector<std::string> refusals_;
  std::unique_ptr<comm::TlsListener> listener_;  // ends first
};

// A connection that knows no TLS.
inline Descriptor stranger(uint16_t port) {
  Descriptor made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(made.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) made.reset();
  return made;
}

// Reads until the other side has closed; what it said. nullopt: it has not closed in time.
inline std::optional<std::string> read_to_end(int socket) {
  std::string said;
  for (;;) {
    pollfd state{socket, POLLIN, 0};
    if (poll(&state, 1, kPatienceMs) <= 0) return std::nullopt;
    char bytes[4096];
    const ssize_t got = recv(socket, bytes, sizeof(bytes), 0);
    if (got <= 0) return said;
    said.append(bytes, static_cast<size_t>(got));
  }
}

}  // namespace lorikeet::tests
