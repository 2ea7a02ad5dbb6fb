// logit_bias, min_tokens, bad_words and allowed_token_ids of one sequence as the constraint of its next draw: a function
// of the request and of the tokens generated so far, so that a preemption or another life of the group changes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/sampling_params.h"
#include "kernels/sampling/token_constraint.h"

namespace lorikeet::actors {

// Threads: one.
class DrawRules {
 public:
  // None where the request asks for none of them.
  static std::optional<DrawRules> make(const engine::SamplingParams& sampling);

  // For the token behind `generated`, of which the last may be model::kPendingToken. What it points to lives until the
  // next call.
  kernels::TokenConstraint next(std::span<const int32_t> generated);

 private:
  explicit DrawRules(const engine::SamplingParams& sampling);

  std::vector<uint32_t> allowed_;
  std::vector<kernels::TokenBias> always_;        // logit_bias and bad words of one token, ordered by id
  std::vector<kernels::TokenBias> in_the_begin_;  // those, and the ids that min_tokens keeps back
  size_t min_tokens_;
  std::vector<std::vector<int32_t>> bad_sequences_;  // of two tokens and more
  std::vector<kernels::TokenBias> merged_;           // of the last call
};

// Whether some token may be drawn whatever the token before the draw is: where there is none all the same, the logits are
// not finite. vocab_size: tokens; 0: not known, and more than are forbidden one by one.
bool leaves_a_token(const kernels::TokenConstraint& constraint, int32_t vocab_size);

}  // namespace lorikeet::actors
