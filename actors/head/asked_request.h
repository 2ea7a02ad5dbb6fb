// What the gateway keeps of a request while its text is prepared, and what preparing it costs.
//
// Threads: functions from any.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "actors/head/access.h"
#include "comm/client/client_messages.h"

namespace lorikeet::actors {

// A request with more messages than this is neither measured nor freed on the gateway's thread.
inline constexpr size_t kCountedMessages = 1024;

struct AskedRequest {
  using TimePoint = std::chrono::steady_clock::time_point;

  std::string name;    // the client's own
  std::string tenant;  // whose limits hold
  bool logprobs = false, prompt_logprobs = false, prompt_top_logprobs = false, prompt_token_ids = false;
  bool early_prompt_logprobs = false;
  int32_t n = 1;  // answers; a wrong number is refused when the request is checked
  std::optional<TimePoint> deadline;
  std::string time_limit;  // where the deadline comes from, for error messages
};

// server_timeout: 0 where there is none; the sooner of the server's and the request's own is its deadline.
AskedRequest asked_for(const comm::GenerateRequest& request, const Grant& grant,
                       std::chrono::milliseconds server_timeout, AskedRequest::TimePoint now);

// Bytes that have to be read to check and tokenize a request, about the memory that it takes. An upper bound where it
// has more than kCountedMessages messages.
size_t bytes_of(const comm::GenerateRequest& request);

}  // namespace lorikeet::actors
