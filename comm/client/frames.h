// The frames of the client protocol (comm/PROTOCOL.md) and the messages in them. No sockets here.
//
// A message is four frames: version, encoding, kind, body.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

inline constexpr std::string_view kProtocolVersion = "lorikeet/1";
inline constexpr size_t kFrameCount = 4;
inline constexpr int kSilentHeartbeats = 5;  // a peer that said nothing for so many heartbeats is gone

// From the server: how often it sends something at least, and the client's session. When a client sees another session than
// before, the server had taken it for lost and cancelled its requests.
struct Heartbeat {
  std::string session;
  int32_t interval_ms = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("session", s.session);
    visit("interval_ms", s.interval_ms);
  }
};

struct ClientHeartbeat {
  template <class Self, class Visitor>
  static void fields(Self&, Visitor&&) {}
};

using ClientFrame =
    std::variant<GenerateRequest, Cancel, StatusRequest, AdapterRequest, ResetPrefixCacheRequest, ClientHeartbeat>;
using ServerFrame = std::variant<Delta, Done, Failure, StatusReply, AdapterReply, PrefixCacheReset, Heartbeat>;

template <class Frame>
struct Decoded {
  Encoding encoding = Encoding::json;
  Frame message;
};

struct Malformed {
  std::optional<Encoding> encoding;  // where it could be read
  std::string id;                    // of the request, where it could be read
  std::string message;
};

struct Frames {
  std::string_view version, encoding, kind;
  std::string body;
};

Frames encode_frames(Encoding encoding, const ClientFrame& message);
Frames encode_frames(Encoding encoding, const ServerFrame& message);

// What the second of the frames says; nullopt where it says nothing that is known.
std::optional<Encoding> encoding_of(std::span<const std::string_view> frames);

tl::expected<Decoded<ClientFrame>, Malformed> decode_client_frames(std::span<const std::string_view> frames,
                                                                   size_t max_bytes);
tl::expected<Decoded<ServerFrame>, Malformed> decode_server_frames(std::span<const std::string_view> frames);

}  // namespace lorikeet::comm
