#include "actors/rank/rank_answer.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>

#include "model/forward/rank_model.h"

namespace lorikeet::actors {
namespace {

using model::AnswerConstraint;

AnswerConstraint::Options options_of(const engine::AnswerRules& rules, const FindGrammar& grammars,
                                     int32_t vocab_size) {
  AnswerConstraint::Options options;
  options.thinking = static_cast<AnswerConstraint::Thinking>(std::clamp(rules.thinking, 0, 2));
  options.opening_tag = rules.opening_tag;
  options.closing_tag = rules.closing_tag;
  options.thinking_budget = rules.thinking_budget;
  options.vocab_size = vocab_size;
  if (rules.grammar_kind < 0 || !grammars) return options;
  if (const auto compiled = grammars(rules.grammar)) {
    options.grammar = compiled->begin(rules.stop_ids);
  } else {
    LOG(ERROR) << "the grammar " << rules.grammar << " is not here";
  }
  return options;
}

// Whether a token of `allowed` is left that no bias forbids.
bool any_left(std::span<const uint32_t> allowed, std::span<const kernels::TokenBias> biases, int32_t last) {
  std::vector<uint32_t> left(allowed.begin(), allowed.end());
  for (const kernels::TokenBias& bias : biases) {
    const auto word = static_cast<size_t>(bias.token_id) / 32;
    const bool counts = bias.after < 0 || bias.after == last;
    if (counts && bias.bias == -INFINITY && bias.token_id >= 0 && word < left.size()) {
      left[word] &= ~(1U << (bias.token_id % 32));
    }
  }
  return std::any_of(left.begin(), left.end(), [](uint32_t word) { return word != 0; });
}

}  // namespace

RankAnswer::RankAnswer(const engine::AnswerRules& rules, const FindGrammar& grammars, int32_t vocab_size)
    : constraint_(options_of(rules, grammars, vocab_size)) {
  if (rules.grammar_kind >= 0 && !constraint_.has_grammar()) nothing_.resize(1);
}

void RankAnswer::take(std::span<const int32_t> generated) {
  for (; taken_ < generated.size() && generated[taken_] != model::kPendingToken; ++taken_) {
    constraint_.accept(generated[taken_]);
  }
}

bool RankAnswer::must_wait(std::span<const int32_t> generated) {
  take(generated);
  return taken_ < generated.size() && constraint_.needs_next_token();
}

kernels::TokenConstraint RankAnswer::next(std::span<const int32_t> generated, kernels::TokenConstraint others) {
  if (!nothing_.empty()) return {nothing_, {}};
  take(generated);
  if (taken_ < generated.size()) return others;  // it does not matter: see must_wait
  const std::span<const uint32_t> allowed = constraint_.allowed();
  if (allowed.empty()) return others;
  const int32_t last = generated.empty() ? -1 : generated.back();
  if (!others.biases.empty() && !any_left(allowed, others.biases, last)) return {allowed, {}};
  return {allowed, others.biases};
}

}  // namespace lorikeet::actors
