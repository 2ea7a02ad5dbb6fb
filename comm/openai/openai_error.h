// Errors as OpenAI's clients read them: a status and {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "comm/client/client_messages.h"

namespace lorikeet::comm {

struct OpenAiError {
  int status = 400;
  std::string message;               // a sentence
  std::optional<std::string> param;  // the field of the request that is wrong
  std::string code;                  // for programs: engine::name_of(ErrorCode), or OpenAI's where it has one
  int32_t retry_after_s = 0;         // of a 429 or 503: when to try again; 0: not known
};

// The error of a request that failed in the gateway. Codes keep their names except where OpenAI's clients expect another:
// unknown_adapter is model_not_found, too_long is context_length_exceeded.
OpenAiError error_of(const Failure& failure);

// Of HTTP itself: a body that could not be read, a route that is not there. `code` is derived from the status.
OpenAiError error_of(int status, std::string_view sentence);

std::string to_body(const OpenAiError& error);

// An event of a stream that has begun; the stream ends after it.
std::string to_event(const OpenAiError& error);

}  // namespace lorikeet::comm
