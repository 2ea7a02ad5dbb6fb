// Bare ZeroMQ sockets that speak frames, right or wrong, for the tests of the client protocol.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

namespace lorikeet::comm {

class RawPeer {
 public:
  using Frames = std::vector<std::string>;

  // A client that connects to a server, or a server that listens.
  RawPeer(zmq::socket_type type, const std::string& address) : socket_(context_, type) {
    socket_.set(zmq::sockopt::linger, 0);
    if (type == zmq::socket_type::router) {
      socket_.set(zmq::sockopt::router_mandatory, 1);
      socket_.bind(address);
    } else {
      socket_.connect(address);
    }
  }

  std::string address() { return socket_.get(zmq::sockopt::last_endpoint); }

  void send(const Frames& frames) {
    for (size_t i = 0; i < frames.size(); ++i) {
      const auto flags = i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none;
      socket_.send(zmq::buffer(frames[i]), flags);
    }
  }

  // nullopt when nothing comes in time.
  std::optional<Frames> receive(std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
    if (zmq::poll(&item, 1, timeout) == 0) return std::nullopt;
    Frames frames;
    bool more = true;
    while (more) {
      zmq::message_t frame;
      (void)socket_.recv(frame);
      more = frame.more();
      frames.push_back(frame.to_string());
    }
    return frames;
  }

  // The next message of another kind than heartbeats; frame `kind_at` holds the kind.
  std::optional<Frames> receive_message(size_t kind_at = 2) {
    while (true) {
      std::optional<Frames> frames = receive();
      if (!frames || frames->size() <= kind_at || (*frames)[kind_at] != "heartbeat") return frames;
    }
  }

 private:
  zmq::context_t context_{1};
  zmq::socket_t socket_;
};

}  // namespace lorikeet::comm
