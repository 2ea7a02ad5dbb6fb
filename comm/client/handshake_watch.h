// Learns from ZeroMQ's socket monitor how the handshakes of a client's socket end; by itself ZeroMQ tries again and again
// without a word.
#pragma once

#include <zmq.hpp>

#include "comm/client/zmq_client.h"

namespace lorikeet::comm {

// Threads: that of the socket.
class HandshakeWatch {
 public:
  // Before the socket connects. Watches nothing where the system has no more descriptors, or the context no more sockets.
  void begin(zmq::context_t& context, zmq::socket_t& socket);

  // Before the socket is closed.
  void end();

  bool is_on() const { return watched_ != nullptr; }
  zmq::pollitem_t poll_item() { return {monitor_.handle(), 0, ZMQ_POLLIN, 0}; }

  // How the last handshake ended; `none` after begin(). Never waits.
  Handshake read();

 private:
  void* watched_ = nullptr;  // the socket's handle
  zmq::socket_t monitor_;
  int number_ = 0;  // of begin(): each has an address of its own
  Handshake last_ = Handshake::none;
};

}  // namespace lorikeet::comm
