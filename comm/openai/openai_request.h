// The bodies of /v1/completions and /v1/chat/completions. Names and meanings are OpenAI's, with vLLM's additions.
//
// Pure functions: no sockets, no model. What depends on the model (lengths, ranges of ids and of sampling values, names
// of adapters) is the gateway's to check, as for every other client.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/openai/openai_error.h"

namespace lorikeet::comm {

struct OpenAiRequest {
  enum class Kind : uint8_t { completion, chat };

  Kind kind = Kind::completion;
  std::optional<std::string> model;      // as it was named; absent: the base model
  std::vector<GenerateRequest> prompts;  // one per prompt, without id and adapter
  int32_t n = 1;                         // choices per prompt
  bool stream = false;
  bool include_usage = false;           // of a stream: a last event with the sums
  bool continuous_usage_stats = false;  // of a stream: the sums so far in every event
  bool logprobs = false;
  int32_t top_logprobs = 0;  // alternatives per token
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;  // log-probabilities name tokens by their ids
  bool prompt_logprobs = false;             // the answer has them, with ranks, in vLLM's form
  bool echo = false;                        // of a completion: its text begins with the prompt's
  std::vector<std::string> unknown_fields;  // that were passed over

  // Whether the answer shows the prompts' tokens or text, which its owner then gives to OpenAiAnswer.
  bool shows_prompts() const { return echo || return_token_ids || prompt_logprobs; }

  size_t choices() const { return prompts.size() * static_cast<size_t>(n); }

  // The request for choice `index` (prompt index / n), with its id: the index in decimal. A seed that was given is
  // counted on, so that the choices of one prompt differ and each can be asked for again.
  GenerateRequest choice(size_t index) const;
};

using OpenAiRequestResult = tl::expected<OpenAiRequest, OpenAiError>;

// Errors: 400 with the field in `param`. Fields that are not served are refused by name unless they say what happens
// anyway; fields that only label a request (user, metadata, ...) and unknown fields are ignored.
OpenAiRequestResult parse_completion(std::string_view body);
OpenAiRequestResult parse_chat(std::string_view body);

// All names that such a body may have, including those that are ignored or refused by name: openapi_requests.cc describes
// the same set.
std::set<std::string, std::less<>> fields_of(OpenAiRequest::Kind kind);

}  // namespace lorikeet::comm
