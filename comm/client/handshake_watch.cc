#include "comm/client/handshake_watch.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

namespace lorikeet::comm {
namespace {

constexpr int kEnds =
    ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

// The first frame of an event: its number (16 bits, the host's order) and its value, which is not needed.
std::optional<Handshake> handshake_of(const zmq::message_t& frame) {
  uint16_t event = 0;
  if (frame.size() < sizeof event) return std::nullopt;
  std::memcpy(&event, frame.data(), sizeof event);
  switch (event) {
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
      return Handshake::key;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      return Handshake::mechanism;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
      return Handshake::cut;
    default:
      return std::nullopt;
  }
}

}  // namespace

void HandshakeWatch::begin(zmq::context_t& context, zmq::socket_t& socket) {
  last_ = Handshake::none;
  const std::string address = fmt::format("inproc://handshakes-{}", ++number_);
  if (zmq_socket_monitor(socket.handle(), address.c_str(), kEnds) != 0) return;
  try {
    zmq::socket_t monitor(context, zmq::socket_type::pair);
    monitor.set(zmq::sockopt::linger, 0);
    monitor.connect(address);
    monitor_ = std::move(monitor);
    watched_ = socket.handle();  // last: a watch that is on has a monitor to read
  } catch (const zmq::error_t&) {
    zmq_socket_monitor(socket.handle(), nullptr, 0);  // its events would have no reader
  }
}

void HandshakeWatch::end() {
  if (watched_ == nullptr) return;
  zmq_socket_monitor(watched_, nullptr, 0);
  watched_ = nullptr;
  monitor_.close();
}

Handshake HandshakeWatch::read() {
  bool more = watched_ != nullptr;
  while (more) {
    zmq::message_t frame;
    bool first = true;
    do {
      try {
        more = monitor_.recv(frame, zmq::recv_flags::dontwait).has_value();
      } catch (const zmq::error_t& error) {
        if (error.num() != EINTR) throw;
        more = false;  // the next call goes on: an event's frames come together
      }
      if (!more) break;
      if (const auto ended = first ? handshake_of(frame) : std::nullopt) last_ = *ended;
      first = false;
    } while (frame.more());
  }
  return last_;
}

}  // namespace lorikeet::comm
