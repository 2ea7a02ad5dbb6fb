#include "comm/client/zap_handler.h"

#include <array>
#include <utility>
#include <vector>

#include "comm/client/curve_keys.h"

namespace lorikeet::comm {
namespace {

constexpr int kBatch = 64;  // questions answered before the server goes on with its clients
constexpr size_t kCurveKeyBytes = 32;
constexpr size_t kKeptZapFrames = 16;

// Of a question: version, its own id, domain, address, routing id, mechanism, and what the client has shown.
enum Frame : size_t { kVersion, kId, kDomain, kAddress, kRoutingId, kMechanism, kFirst, kSecond };

std::string z85(const zmq::message_t& key) {
  std::array<char, kCurveKeyCharacters + 1> text{};
  zmq_z85_encode(text.data(), static_cast<const uint8_t*>(key.data()), key.size());
  return text.data();
}

}  // namespace

ZapHandler::ZapHandler(zmq::context_t& context, ZmqUsers users)
    : users_(std::move(users)), socket_(context, zmq::socket_type::rep) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
}

void ZapHandler::act() {
  for (int i = 0; i < kBatch; ++i) {
    std::vector<zmq::message_t> frames;
    for (bool more = true; more;) {
      zmq::message_t frame;
      if (!socket_.recv(frame, zmq::recv_flags::dontwait)) return;  // only before the first frame
      more = frame.more();
      if (frames.size() < kKeptZapFrames) frames.push_back(std::move(frame));
    }
    const auto user = user_of(frames);
    const std::string id = frames.size() > kId ? frames[kId].to_string() : "";
    for (const std::string& part : {std::string("1.0"), id, std::string(user ? "200" : "400"),
                                    std::string(user ? "" : "nobody is known by that"), user.value_or("")}) {
      socket_.send(zmq::buffer(part), zmq::send_flags::sndmore);
    }
    socket_.send(zmq::message_t(), zmq::send_flags::none);  // no metadata
  }
}

std::optional<std::string> ZapHandler::user_of(const std::vector<zmq::message_t>& frames) const {
  if (frames.size() <= kFirst || frames[kVersion].to_string_view() != "1.0") return std::nullopt;
  const std::string_view mechanism = frames[kMechanism].to_string_view();
  if (mechanism == "CURVE" && users_.of_curve_key && frames[kFirst].size() == kCurveKeyBytes) {
    return users_.of_curve_key(z85(frames[kFirst]));
  }
  if (mechanism == "PLAIN" && users_.of_password && frames.size() > kSecond) {
    return users_.of_password(frames[kFirst].to_string_view(), frames[kSecond].to_string_view());
  }
  return std::nullopt;
}

}  // namespace lorikeet::comm
