#include "actors/rank/draw_rules.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lorikeet::actors {
namespace {

using kernels::TokenBias;

void sort_by_token(std::vector<TokenBias>& biases) {
  std::stable_sort(biases.begin(), biases.end(),
                   [](const TokenBias& a, const TokenBias& b) { return a.token_id < b.token_id; });
}

TokenBias forbidden(int32_t token, int32_t after = -1) {
  return {token, -INFINITY, after};
}

}  // namespace

std::optional<DrawRules> DrawRules::make(const engine::SamplingParams& sampling) {
  const bool any = !sampling.logit_bias.empty() || sampling.min_tokens > 0 || !sampling.bad_words.empty() ||
                   !sampling.allowed_token_ids.empty();
  return any ? std::optional<DrawRules>(DrawRules(sampling)) : std::nullopt;
}

DrawRules::DrawRules(const engine::SamplingParams& sampling)
    : min_tokens_(static_cast<size_t>(std::max(sampling.min_tokens, 0))) {
  for (const int32_t token : sampling.allowed_token_ids) {
    if (token < 0) continue;
    const auto word = static_cast<size_t>(token) / 32;
    if (word >= allowed_.size()) allowed_.resize(word + 1);
    allowed_[word] |= 1U << token % 32;
  }
  for (const engine::LogitBias& bias : sampling.logit_bias) always_.push_back({bias.token_id, bias.bias, -1});
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    if (word.size() == 1) always_.push_back(forbidden(word.front()));
    if (word.size() > 1) bad_sequences_.push_back(word);
  }
  sort_by_token(always_);
  in_the_begin_ = always_;
  for (const int32_t token : sampling.ids_after_min_tokens) in_the_begin_.push_back(forbidden(token));
  sort_by_token(in_the_begin_);
}

kernels::TokenConstraint DrawRules::next(std::span<const int32_t> generated) {
  const std::vector<TokenBias>& fixed = generated.size() < min_tokens_ ? in_the_begin_ : always_;
  merged_.clear();
  for (const std::vector<int32_t>& word : bad_sequences_) {
    if (generated.size() + 1 < word.size()) continue;
    // The token just before the draw may not be known here: it is compared where the draw is made.
    const auto begin = generated.end() - static_cast<std::ptrdiff_t>(word.size() - 1);
    if (std::equal(begin, generated.end() - 1, word.begin())) {
      merged_.push_back(forbidden(word.back(), word[word.size() - 2]));
    }
  }
  if (merged_.empty()) return {allowed_, fixed};
  merged_.insert(merged_.end(), fixed.begin(), fixed.end());
  sort_by_token(merged_);
  return {allowed_, merged_};
}

bool leaves_a_token(const kernels::TokenConstraint& constraint, int32_t vocab_size) {
  const auto forbids = [&](int32_t token) {
    const auto before = [](const TokenBias& bias, int32_t id) { return bias.token_id < id; };
    auto at = std::lower_bound(constraint.biases.begin(), constraint.biases.end(), token, before);
    while (at != constraint.biases.end() && at->token_id == token && at->bias != -INFINITY) ++at;
    return at != constraint.biases.end() && at->token_id == token;
  };
  if (constraint.allowed.empty()) {
    if (vocab_size == 0) return true;
    int32_t token = 0;  // there are no more steps than biases
    while (token < vocab_size && forbids(token)) ++token;
    return token < vocab_size;
  }
  for (size_t word = 0; word < constraint.allowed.size(); ++word) {
    for (uint32_t bits = constraint.allowed[word]; bits != 0; bits &= bits - 1) {
      const auto token = static_cast<int32_t>(word * 32) + std::countr_zero(bits);
      if (vocab_size > 0 && token >= vocab_size) return false;
      if (!forbids(token)) return true;
    }
  }
  return false;
}

}  // namespace lorikeet::actors
