// What a row may draw and which tokens it favours: bits of allowed tokens and a sparse list of biases, applied to its
// logits before penalties, temperature and filters (vLLM's order). All that restrains or steers a draw comes this way:
// logit_bias, min_tokens, bad_words and allowed_token_ids today, a grammar's mask beside them.
//
// How to use it. Whoever prepares a row of a step (on a rank: actors/rank/draw_rules.h) hands a TokenConstraint with it
// (model::BatchRow::constraint). A mask of its own, such as a grammar's, is and-ed into the bits: they have XGrammar's
// layout. Every rank gets the bits and biases of the whole vocabulary and takes its part of them, so all draw alike.
// What depends on the token just before the draw, which the host need not know yet, says so by TokenBias::after.
// Rows without a constraint (any() is false) take no memory, no launch and no copy.
//
// A forbidden token's logit becomes not a number, which no draw takes: where all are forbidden, the row has no token.
// Log-probabilities are reported from before.
#pragma once

#include <cstdint>
#include <span>

namespace lorikeet::kernels {

struct TokenBias {
  int32_t token_id = 0;
  float bias = 0;      // added to the logit; -infinity forbids the token
  int32_t after = -1;  // counts only where the token before the draw is this one; -1: always
};

struct TokenConstraint {
  // Bit t % 32 of word t / 32: whether token t may be drawn. Tokens past the last word may not. Empty: all may.
  std::span<const uint32_t> allowed;
  std::span<const TokenBias> biases;  // ordered by token id; those of one token add up

  bool any() const { return !allowed.empty() || !biases.empty(); }
};

constexpr int32_t mask_words(int32_t tokens) {
  return (tokens + 31) / 32;
}

// Changes logits [size], which are those of tokens vocab_begin, vocab_begin + 1, ...; last_token is the one before the
// draw. Ids outside of the vocabulary count for nothing.
void constrain_logits_cpu(float* logits, int32_t size, int32_t vocab_begin, const TokenConstraint& constraint,
                          int32_t last_token);

}  // namespace lorikeet::kernels
