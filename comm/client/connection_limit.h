// How many connections a listening ZeroMQ socket may have. ZeroMQ takes as many as the process has descriptors for; then
// nobody else can connect, and neither a rank nor an adapter can be opened.
//
// Past the limit, those that have sent nothing yet (whose ZeroMQ handshake has not begun) are cut first, the oldest
// first, then the newest ones. Of those over TCP that have not sent a message, and so may still be in their handshake, only
// `max_unspoken` are kept: each newer one cuts the oldest.
#pragma once

#include <cstddef>
#include <deque>
#include <list>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <zmq.hpp>

namespace lorikeet::comm {

// Connections that the process has descriptors for: its limit, less those that are open now, less `reserved`.
size_t descriptors_for_connections(size_t reserved);

// Threads: one, the socket's.
class ConnectionLimit {
 public:
  // Before the socket is bound. At least one connection is allowed.
  ConnectionLimit(zmq::context_t& context, zmq::socket_t& listener, size_t max_connections, size_t max_unspoken);
  ~ConnectionLimit();
  ConnectionLimit(const ConnectionLimit&) = delete;
  ConnectionLimit& operator=(const ConnectionLimit&) = delete;

  void* handle() { return events_.handle(); }  // readable: act() has something to do
  void act();
  size_t connections() const { return open_.size(); }

  // A message has come over the connection; -1: it is not known over which.
  void spoke(int descriptor) {
    if (descriptor >= 0 && spoken_.insert(descriptor).second) note_spoken(descriptor);
  }

 private:
  struct Connection {
    int descriptor = -1;  // ZeroMQ's
    bool cut = false;
  };

  void cut_one();
  void cut(Connection& connection);
  void cut_unspoken();
  void forget_unspoken(int descriptor);
  void note_spoken(int descriptor);

  zmq::socket_t& listener_;
  const size_t max_connections_, max_unspoken_;
  zmq::socket_t events_;
  std::deque<Connection> open_;  // as they came
  std::list<int> unspoken_;      // descriptors, as they came
  std::unordered_map<int, std::list<int>::iterator> places_;
  std::unordered_set<int> spoken_;
};

}  // namespace lorikeet::comm
