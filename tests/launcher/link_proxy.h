// A stand-in for the network between a worker and its head, connection by connection: it holds them up, delays or cuts
// them. What ranks send each other does not go through it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/base/descriptor.h"

namespace lorikeet::tests {

class LinkProxy {
 public:
  // Listens on `address` (numeric, IPv4) of the namespace that the caller is in, and connects to address:to.
  LinkProxy(const std::string& address, uint16_t to);
  ~LinkProxy();
  LinkProxy(const LinkProxy&) = delete;
  LinkProxy& operator=(const LinkProxy&) = delete;

  uint16_t port() const { return port_; }
  void set_delay(std::chrono::microseconds delay) { delay_us_ = delay.count(); }  // of every byte, each way
  size_t connections() const;                                                     // that there were so far
  void hold(size_t connection, bool held);  // nothing goes through meanwhile, and nothing is lost
  void cut(size_t connection);
  uint64_t bytes_to_head() const { return bytes_[0]; }
  uint64_t bytes_from_head() const { return bytes_[1]; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Chunk {
    Clock::time_point due;
    std::string bytes;
  };
  struct Connection {
    Descriptor ends[2];  // of the worker, of the head
    std::deque<Chunk> to[2];
    bool ended[2] = {};  // has nothing more to say
    bool held = false, cut = false;
  };

  void run();
  bool accept_one();
  bool get_on(Connection& connection, Clock::time_point now, Clock::time_point& next);

  const std::string address_;
  const uint16_t to_;
  Descriptor socket_, wake_;
  uint16_t port_ = 0;
  std::atomic<int64_t> delay_us_{0};
  std::atomic<uint64_t> bytes_[2] = {};
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<Connection>> connections_;
  std::thread thread_;
};

}  // namespace lorikeet::tests
