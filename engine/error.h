// Why a request ends without its answer. The code is for programs, the message is a sentence for people.
#pragma once

#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace lorikeet::engine {

enum class ErrorCode : uint8_t {
  invalid_request,  // the request itself is wrong
  unknown_adapter,  // no adapter of that name
  adapter_failed,   // the adapter cannot be served
  too_long,         // prompt + max_tokens exceed the context, or the KV pool
  queue_full,       // past --max-num-queued-reqs
  rank_lost,        // the ranks are not available
  poison,           // the ranks fail whenever they compute the request, alone as well
  no_token,         // no token can be drawn: logits that are not finite, or the request forbids all
  shutting_down,    // the server is going away
  internal,
};

constexpr std::string_view name_of(ErrorCode code) {
  constexpr std::string_view names[] = {"invalid_request", "unknown_adapter", "adapter_failed", "too_long",
                                        "queue_full",      "rank_lost",       "poison",         "no_token",
                                        "shutting_down",   "internal"};
  static_assert(std::size(names) == static_cast<size_t>(ErrorCode::internal) + 1);
  return names[static_cast<size_t>(code)];
}

struct RequestError {
  ErrorCode code = ErrorCode::internal;
  std::string message;
  std::string field = {};  // of the client's request, where it is one field that is wrong

  bool operator==(const RequestError&) const = default;
};

}  // namespace lorikeet::engine
