#include "comm/client/frames.h"

#include <type_traits>
#include <utility>

#include "comm/client/adapter_request.h"
#include "comm/client/json_order.h"
#include "comm/client/limits.h"
#include "comm/client/request_json.h"
#include "comm/codec/codec.h"
#include "comm/codec/json_codec.h"

namespace lorikeet::comm {
namespace {

template <class Message>
constexpr std::string_view kKind = "";
template <>
constexpr std::string_view kKind<GenerateRequest> = "generate";
template <>
constexpr std::string_view kKind<Cancel> = "cancel";
template <>
constexpr std::string_view kKind<StatusRequest> = "status";
template <>
constexpr std::string_view kKind<AdapterRequest> = "adapter";
template <>
constexpr std::string_view kKind<ResetPrefixCacheRequest> = "reset_prefix_cache";
template <>
constexpr std::string_view kKind<ClientHeartbeat> = "heartbeat";
template <>
constexpr std::string_view kKind<Delta> = "delta";
template <>
constexpr std::string_view kKind<Done> = "done";
template <>
constexpr std::string_view kKind<Failure> = "failure";
template <>
constexpr std::string_view kKind<StatusReply> = "status";
template <>
constexpr std::string_view kKind<AdapterReply> = "adapter";
template <>
constexpr std::string_view kKind<PrefixCacheReset> = "reset_prefix_cache";
template <>
constexpr std::string_view kKind<Heartbeat> = "heartbeat";

constexpr std::string_view name_of(Encoding encoding) {
  return encoding == Encoding::cereal ? "cereal" : "json";
}

std::optional<Encoding> encoding_named(std::string_view name) {
  if (name == name_of(Encoding::cereal)) return Encoding::cereal;
  if (name == name_of(Encoding::json)) return Encoding::json;
  return std::nullopt;
}

// As REQ sockets send.
bool is_delimited(std::span<const std::string_view> frames) {
  return frames.size() > kFrameCount && frames[0].empty();
}

template <class Message>
std::string encode_body(Encoding encoding, const Message& message) {
  if constexpr (std::is_same_v<Message, ClientHeartbeat>) return "";
  if (encoding == Encoding::json) return to_json(message);
  const std::vector<uint8_t> bytes = encode(message);
  return {bytes.begin(), bytes.end()};
}

template <class Variant>
Frames encode_variant(Encoding encoding, const Variant& variant) {
  return std::visit(
      [encoding](const auto& message) {
        using Message = std::remove_cvref_t<decltype(message)>;
        return Frames{kProtocolVersion, name_of(encoding), kKind<Message>, encode_body(encoding, message)};
      },
      variant);
}

template <class Message>
Result<Message> decode_body(Encoding encoding, std::string_view body, size_t max_bytes) {
  if constexpr (std::is_same_v<Message, ClientHeartbeat>) {
    if (!body.empty()) return fail("a heartbeat has {} bytes where none are expected", body.size());
    return ClientHeartbeat{};
  } else {
    if (encoding == Encoding::cereal) {
      return decode<Message>({reinterpret_cast<const uint8_t*>(body.data()), body.size()});
    }
    JsonLimits limits = kBodyLimits;
    limits.max_bytes = max_bytes;
    Result<nlohmann::json> value = parse_bounded_json(body, limits);
    if (!value) return tl::unexpected(value.error());
    take_integer_id(*value);
    Result<Message> message = from_json_value<Message>(*value);
    if constexpr (std::is_same_v<Message, GenerateRequest>) {
      if (message) keep_written_order(body, *message);
    }
    return message;
  }
}

// Finds the alternative whose kind it is.
template <class Variant, size_t I = 0>
Result<Variant> decode_variant(Encoding encoding, std::string_view kind, std::string_view body, size_t max_bytes) {
  if constexpr (I == std::variant_size_v<Variant>) {
    return fail("unknown kind {}", excerpt(kind));
  } else {
    using Message = std::variant_alternative_t<I, Variant>;
    if (kind != kKind<Message>) return decode_variant<Variant, I + 1>(encoding, kind, body, max_bytes);
    Result<Message> message = decode_body<Message>(encoding, body, max_bytes);
    if (!message) return tl::unexpected(message.error());
    return Variant(*std::move(message));
  }
}

template <class Variant>
tl::expected<Decoded<Variant>, Malformed> decode_frames(std::span<const std::string_view> frames, size_t max_bytes) {
  const auto refuse = [](std::optional<Encoding> encoding, std::string message) {
    return tl::unexpected<Malformed>(Malformed{encoding, "", std::move(message)});
  };
  const bool delimited = is_delimited(frames);
  const std::optional<Encoding> encoding = encoding_of(frames);
  if (frames.size() != kFrameCount) {
    return refuse(encoding,
                  fmt::format("{} frames where {} are expected: version, encoding, kind, body{}", frames.size(),
                              kFrameCount, delimited ? "; the first is empty: use a DEALER, not a REQ socket" : ""));
  }
  if (frames[0] != kProtocolVersion) {
    return refuse(encoding, fmt::format("version {} where {} is expected", excerpt(frames[0]), kProtocolVersion));
  }
  if (!encoding)
    return refuse(encoding, fmt::format("encoding {} where json or cereal is expected", excerpt(frames[1])));
  const std::string_view body = frames[3];
  if (body.size() > max_bytes) {
    return refuse(encoding, fmt::format("a body of {} bytes where {} are allowed", body.size(), max_bytes));
  }
  Result<Variant> message = decode_variant<Variant>(*encoding, frames[2], body, max_bytes);
  if (message) return Decoded<Variant>{*encoding, *std::move(message)};
  Malformed malformed{encoding, "", message.error().message};
  if (*encoding == Encoding::json) malformed.id = find_id(body);
  return tl::unexpected<Malformed>(std::move(malformed));
}

}  // namespace

std::optional<Encoding> encoding_of(std::span<const std::string_view> frames) {
  const size_t at = is_delimited(frames) ? 2 : 1;
  return frames.size() > at ? encoding_named(frames[at]) : std::nullopt;
}

Frames encode_frames(Encoding encoding, const ClientFrame& message) {
  return encode_variant(encoding, message);
}

Frames encode_frames(Encoding encoding, const ServerFrame& message) {
  return encode_variant(encoding, message);
}

tl::expected<Decoded<ClientFrame>, Malformed> decode_client_frames(std::span<const std::string_view> frames,
                                                                   size_t max_bytes) {
  auto decoded = decode_frames<ClientFrame>(frames, max_bytes);
  if (!decoded) return decoded;
  if (const auto* request = std::get_if<GenerateRequest>(&decoded->message)) {
    if (const Result<void> checked = check_sizes(*request); !checked) {
      return tl::unexpected<Malformed>(Malformed{decoded->encoding, request->id, checked.error().message});
    }
  } else if (const auto* change = std::get_if<AdapterRequest>(&decoded->message)) {
    if (const Result<void> checked = check_sizes(*change); !checked) {
      return tl::unexpected<Malformed>(Malformed{decoded->encoding, change->id, checked.error().message});
    }
  }
  return decoded;
}

tl::expected<Decoded<ServerFrame>, Malformed> decode_server_frames(std::span<const std::string_view> frames) {
  return decode_frames<ServerFrame>(frames, kMaxAnswerBytes);
}

}  // namespace lorikeet::comm
