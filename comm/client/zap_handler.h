// Answers the questions that ZeroMQ asks when a client shows its key or password (ZAP, RFC 27 of ZeroMQ), on the thread
// of the server. One per context.
#pragma once

#include <optional>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "comm/client/zmq_server.h"

namespace lorikeet::comm {

// Threads: one.
class ZapHandler {
 public:
  // Before the server's socket is bound.
  ZapHandler(zmq::context_t& context, ZmqUsers users);

  void* handle() { return socket_.handle(); }  // readable: act() has something to do
  void act();

 private:
  std::optional<std::string> user_of(const std::vector<zmq::message_t>& frames) const;

  const ZmqUsers users_;
  zmq::socket_t socket_;
};

}  // namespace lorikeet::comm
