// What the answer of one sequence is held to on a rank: engine::AnswerRules as the constraint of its next draw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/sampling_params.h"
#include "kernels/sampling/token_constraint.h"
#include "model/grammar/answer_constraint.h"
#include "model/grammar/grammar.h"

namespace lorikeet::actors {

// A grammar of those that the head has sent, by digest; null where there is none. May be empty: there are none at all.
using FindGrammar = std::function<std::shared_ptr<const model::CompiledGrammar>(const std::string& digest)>;

// Threads: one. Every rank makes the same of the same tokens.
class RankAnswer {
 public:
  // Where the grammar is not to be found, no token may be drawn, which ends the request alone.
  RankAnswer(const engine::AnswerRules& rules, const FindGrammar& grammars, int32_t vocab_size);

  // Whether next() needs the last of `generated`, which is model::kPendingToken.
  bool must_wait(std::span<const int32_t> generated);

  // For the token behind `generated`; `others` restrains the same draw. Where nothing is left of both, the answer's
  // rules stand alone: an end that min_tokens forbids is better than none. Lives until the next call.
  kernels::TokenConstraint next(std::span<const int32_t> generated, kernels::TokenConstraint others);

 private:
  void take(std::span<const int32_t> generated);

  model::AnswerConstraint constraint_;
  std::vector<uint32_t> nothing_;  // not empty: no token may be drawn
  size_t taken_ = 0;               // tokens that the constraint knows
};

}  // namespace lorikeet::actors
