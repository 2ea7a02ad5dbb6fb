#include "comm/client/zmq_client.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>
#include <zmq.hpp>

#include "comm/client/frames.h"
#include "comm/client/handshake_watch.h"
#include "comm/client/limits.h"

namespace lorikeet::comm {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr Milliseconds kDefaultHeartbeat{2000};  // until the server says its own
constexpr Milliseconds kLongestHeartbeat{60'000};
constexpr int kClientLingerMs = 200;         // for a last Cancel
constexpr Milliseconds kGreetingWait{1000};  // for that word, once per connection

class DealerClient final : public ZmqClient {
 public:
  DealerClient(std::string address, Encoding encoding, ZmqIdentity identity)
      : address_(std::move(address)), encoding_(encoding), identity_(std::move(identity)) {}

  // A fresh socket: what the old one still held, in either direction, is forgotten.
  Result<void> open() {
    watch_.end();
    try {
      dealer_ = zmq::socket_t(context_, zmq::socket_type::dealer);
      dealer_.set(zmq::sockopt::linger, kClientLingerMs);
      dealer_.set(zmq::sockopt::maxmsgsize, static_cast<int64_t>(kMaxAnswerBytes));
      show_identity();
      watch_.begin(context_, dealer_);
      dealer_.connect(address_);
    } catch (const zmq::error_t& error) {
      return fail("cannot connect to {}: {}", address_, error.what());
    }
    session_.clear();
    held_.clear();
    awaited_ = false;
    heard_ = Clock::now();
    return transmit(ClientHeartbeat{});  // the server answers with the session
  }

  // A server that lives answers the first heartbeat at once; one that does not is left to receive().
  bool await_greeting(Milliseconds timeout) override {
    const Clock::time_point deadline = Clock::now() + timeout;
    for (Clock::time_point now = Clock::now(); session_.empty() && !early_ && now < deadline; now = Clock::now()) {
      handshake_ = watch_.read();
      if (handshake_ == Handshake::key || handshake_ == Handshake::mechanism) return false;
      wait(std::chrono::ceil<Milliseconds>(deadline - now), watch_.is_on());
      std::vector<zmq::message_t> frames;
      if (take(frames)) early_ = handle(frames);
    }
    return !session_.empty();
  }

  Handshake handshake() const override { return handshake_; }

  // Held back until the session is known: what is sent before could reach a server that dies unseen, and its requests
  // would be lost without a word.
  Result<void> send(const ClientMessage& message) override {
    return std::visit(
        [this](const auto& alternative) -> Result<void> {
          if (session_.empty() && !std::exchange(awaited_, true)) await_greeting(kGreetingWait);
          if (!session_.empty()) return transmit(alternative);
          if (held_.size() >= kMaxHeldMessages) return fail("the server at {} does not answer", address_);
          held_.emplace_back(alternative);
          return {};
        },
        message);
  }

  std::optional<ServerMessage> receive(Milliseconds timeout) override {
    if (early_) return std::exchange(early_, std::nullopt);
    const Clock::time_point deadline = Clock::now() + timeout;
    while (true) {
      handshake_ = watch_.read();
      std::vector<zmq::message_t> frames;
      if (take(frames)) {
        if (std::optional<ServerMessage> message = handle(frames)) return message;
        continue;
      }
      const Clock::time_point now = Clock::now();
      if (now - heard_ >= kSilentHeartbeats * heartbeat_) {
        heard_ = now;
        if (!lost_) {
          return lose(
              fmt::format("the server at {} is silent{}", address_, is_known() ? ", or does not take this key" : ""));
        }
      }
      if (now - spoke_ >= heartbeat_ && !transmit(ClientHeartbeat{})) spoke_ = now;
      if (now >= deadline) return std::nullopt;
      const Clock::time_point until =
          std::min({deadline, spoke_ + heartbeat_, heard_ + kSilentHeartbeats * heartbeat_});
      wait(std::max(std::chrono::ceil<Milliseconds>(until - now), Milliseconds(0)));
    }
  }

 private:
  bool is_known() const { return !identity_.server_key.empty() || !identity_.password.empty(); }

  void show_identity() {
    if (!identity_.server_key.empty()) {
      dealer_.set(zmq::sockopt::curve_serverkey, identity_.server_key);
      dealer_.set(zmq::sockopt::curve_publickey, identity_.public_key);
      dealer_.set(zmq::sockopt::curve_secretkey, identity_.secret_key);
    } else if (!identity_.password.empty()) {
      dealer_.set(zmq::sockopt::plain_username, identity_.user);
      dealer_.set(zmq::sockopt::plain_password, identity_.password);
    }
  }

  Result<void> transmit(const ClientFrame& message) {
    const Frames frames = encode_frames(encoding_, message);
    try {
      // The first frame decides: a message that ZeroMQ took in part it takes whole.
      if (!dealer_.send(zmq::buffer(frames.version), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) {
        return fail("the server at {} takes no more requests", address_);
      }
      dealer_.send(zmq::buffer(frames.encoding), zmq::send_flags::sndmore);
      dealer_.send(zmq::buffer(frames.kind), zmq::send_flags::sndmore);
      dealer_.send(zmq::buffer(frames.body), zmq::send_flags::none);
    } catch (const zmq::error_t& error) {
      return fail("cannot send to {}: {}", address_, error.what());
    }
    spoke_ = Clock::now();
    return {};
  }

  // False when there is no message.
  bool take(std::vector<zmq::message_t>& frames) {
    bool more = true;
    while (more) {
      zmq::message_t frame;
      try {
        if (!dealer_.recv(frame, zmq::recv_flags::dontwait)) return false;
      } catch (const zmq::error_t& error) {
        if (error.num() != EINTR) throw;
        continue;
      }
      more = frame.more();
      frames.push_back(std::move(frame));
    }
    return true;
  }

  // For a message, or for the end of a handshake as well.
  void wait(Milliseconds time, bool or_handshake = false) {
    zmq::pollitem_t items[2] = {{dealer_.handle(), 0, ZMQ_POLLIN, 0}, {}};
    if (or_handshake) items[1] = watch_.poll_item();
    try {
      zmq::poll(items, or_handshake ? 2 : 1, time);
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR) throw;
    }
  }

  std::optional<ServerMessage> handle(const std::vector<zmq::message_t>& frames) {
    heard_ = Clock::now();
    lost_ = false;
    std::vector<std::string_view> parts;
    for (const zmq::message_t& frame : frames) parts.push_back(frame.to_string_view());
    auto decoded = decode_server_frames(parts);
    if (!decoded)
      return Failure{decoded.error().id, "malformed",
                     "the server sent a message that cannot be read: " + decoded.error().message};
    if (const auto* heartbeat = std::get_if<Heartbeat>(&decoded->message)) return handle_heartbeat(*heartbeat);
    return std::visit(
        [](auto& message) -> std::optional<ServerMessage> {
          if constexpr (std::is_same_v<std::remove_cvref_t<decltype(message)>, Heartbeat>) {
            return std::nullopt;
          } else {
            return ServerMessage(std::move(message));
          }
        },
        decoded->message);
  }

  std::optional<ServerMessage> handle_heartbeat(const Heartbeat& heartbeat) {
    heartbeat_ = std::clamp(Milliseconds(heartbeat.interval_ms), Milliseconds(1), kLongestHeartbeat);
    if (session_ == heartbeat.session) return std::nullopt;
    if (!session_.empty()) {
      return lose(
          fmt::format("the server at {} was started anew, or had not heard of this client for too long; what it "
                      "was asked is lost and may be asked again",
                      address_));
    }
    session_ = heartbeat.session;
    watch_.end();  // its events would pile up
    for (const ClientFrame& message : std::exchange(held_, {})) {
      if (const Result<void> sent = transmit(message); !sent) return lose(sent.error().message);
    }
    return std::nullopt;
  }

  // The requests may be sent again, so whatever is left of them must not reach a server: the old socket goes.
  ServerMessage lose(const std::string& why) {
    lost_ = true;
    watch_.end();
    dealer_.set(zmq::sockopt::linger, 0);
    dealer_.close();
    std::string message = why;
    if (const Result<void> opened = open(); !opened) message += "; " + opened.error().message;
    return Failure{"", "server_lost", message};
  }

  const std::string address_;
  const Encoding encoding_;
  const ZmqIdentity identity_;
  zmq::context_t context_{1};
  zmq::socket_t dealer_;
  HandshakeWatch watch_;  // until the session is known
  Handshake handshake_ = Handshake::none;
  std::string session_;                 // empty until the server has said it
  bool awaited_ = false;                // send() has waited for it
  std::optional<ServerMessage> early_;  // for receive(): what a server said before its greeting
  std::vector<ClientFrame> held_;       // until then
  Milliseconds heartbeat_ = kDefaultHeartbeat;
  Clock::time_point heard_, spoke_;
  bool lost_ = false;  // and reported
};

}  // namespace

Result<std::unique_ptr<ZmqClient>> ZmqClient::connect(const std::string& address, Encoding encoding,
                                                      const ZmqIdentity& identity) {
  auto client = std::make_unique<DealerClient>(address, encoding, identity);
  if (const Result<void> opened = client->open(); !opened) return tl::unexpected(opened.error());
  return client;
}

}  // namespace lorikeet::comm
