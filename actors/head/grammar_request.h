// The grammars that requests ask for, in OpenAI's and vLLM's words.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"
#include "model/grammar/grammar_spec.h"

namespace lorikeet::actors {

// What response_format or structured_outputs want, none where neither wants anything. Errors name the field.
Result<std::optional<model::GrammarSpec>> grammar_of(const comm::GenerateRequest& request);

// The grammar of one or more calls of these tools (JSON objects), in the form of hermes or qwen3_coder.
struct CallGrammar {
  std::string form;
  bool one = false;  // exactly one call
};
Result<model::GrammarSpec> grammar_of_calls(const std::vector<std::string>& tools, const CallGrammar& calls);

}  // namespace lorikeet::actors
