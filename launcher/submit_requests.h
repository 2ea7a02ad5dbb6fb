// From the flags of `lorikeet submit` to the requests that it sends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

struct SubmitPlan {
  std::vector<std::string> prompts;
  std::vector<std::vector<int32_t>> token_prompts;  // further prompts, given as token ids
  std::vector<std::string> adapters;  // of each prompt, or one for all, or several for one prompt; or comm::kBaseModel
  std::optional<std::string> system;  // the system's message before each prompt; makes it a chat
  bool chat = false;                  // each prompt is a user's message
  int32_t answers = 1;                // to each prompt; of draws from different seeds
  comm::GenerateRequest sampling;     // everything but id, prompt and adapter
};

struct LabelledRequest {
  comm::GenerateRequest request;  // its id is its place
  std::string label;              // differs from all others'
};

// Catches a likely mistake: token ids separated by spaces, which the shell turns into prompts of text.
Result<void> check_prompts(const SubmitPlan& plan);

// The requests, by prompt and then by answer. Errors: the numbers of prompts and adapters do not match; token ids as messages
// of a chat.
Result<std::vector<LabelledRequest>> make_requests(const SubmitPlan& plan);

}  // namespace lorikeet::launcher
