// How many connections a listening ZeroMQ socket may have. ZeroMQ takes as many as the process has descriptors for; then
// nobody else can connect, and neither a rank nor an adapter can be opened.
//
// Past the limit, those that have sent nothing yet (whose ZeroMQ handshake has not begun) are cut first, the oldest
// first, then the newest ones.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <zmq.hpp>

namespace lorikeet::comm {

// Connections that the process has descriptors for: its limit, less those that are open now, less `reserved`.
size_t descriptors_for_connections(size_t reserved);

// Threads: one, the socket's.
class ConnectionLimit {
 public:
  // Before the socket is bound. At least one connection is allowed.
  ConnectionLimit(zmq::context_t& context, zmq::socket_t& listener, size_t max_connections);
  ~ConnectionLimit();
  ConnectionLimit(const ConnectionLimit&) = delete;
  ConnectionLimit& operator=(const ConnectionLimit&) = delete;

  void* handle() { return events_.handle(); }  // readable: act() has something to do
  void act();
  size_t connections() const { return open_.size(); }

 private:
  struct Connection {
    int descriptor = -1;  // ZeroMQ's
    bool cut = false;
  };

  void cut_one();

  zmq::socket_t& listener_;
  const size_t max_connections_;
  zmq::socket_t events_;
  std::deque<Connection> open_;  // as they came
};

}  // namespace lorikeet::comm
