// How a token is drawn from logits. Definitions and order are vLLM's sampler's: penalties, temperature, min_p, top_k,
// top_p, draw. The draw is argmax of logit / temperature - log(E) with E exponential, from the noise of
// kernels/sampling/philox.h; ties go to the lower token id.
#pragma once

#include <cstdint>
#include <vector>

namespace lorikeet::kernels {

inline constexpr float kGreedyTemperature = 1e-5F;  // below it: the best token

struct DrawParameters {
  float temperature = 1;
  float top_p = 1;    // 1: off
  int32_t top_k = 0;  // 0: off
  float min_p = 0;    // 0: off
  uint64_t seed = 0;
  int32_t position = 0;  // absolute, of the token that is drawn

  bool greedy() const { return temperature < kGreedyTemperature; }
  bool filtered() const { return !greedy() && (top_k > 0 || top_p < 1 || min_p > 0); }
};

struct PenaltyParameters {
  float repetition = 1;  // logits of tokens seen (prompt or output): divided where positive, multiplied where not
  float presence = 0;    // subtracted once from tokens generated
  float frequency = 0;   // subtracted as often as a token was generated

  bool any() const { return repetition != 1 || presence != 0 || frequency != 0; }
};

// logit of a token that was seen, generated `in_output` times -> penalised.
float penalized_logit_cpu(float logit, const PenaltyParameters& penalty, int32_t in_output);

// A token and how good it is: greater is better, of equal ones the lower id.
struct ScoredToken {
  float score = 0;
  int32_t token_id = -1;

  bool better_than(const ScoredToken& other) const {
    return other.token_id < 0 || score > other.score || (score == other.score && token_id < other.token_id);
  }
};

// The best token of logits [size], which are those of tokens vocab_begin, vocab_begin + 1, ...: by logit where greedy,
// else by logit / temperature + noise. Filters are ignored. Logits that are not numbers never win.
ScoredToken best_token_cpu(const float* logits, int32_t size, int32_t vocab_begin, const DrawParameters& draw);

// The token drawn from all logits [vocab] through the filters; -1 where the best is not finite.
int32_t draw_filtered_cpu(const float* logits, int32_t vocab, const DrawParameters& draw);

// max of logits [size], and sum of exp(logit - max); of no logits: -infinity and 0.
struct LogitMass {
  float max = 0;
  float sum = 0;
};
LogitMass logit_mass_cpu(const float* logits, int32_t size);

// log(sum of exp(logit)) over parts, added in their order.
float log_normalizer_cpu(const LogitMass* parts, int32_t count);

// Logits [size] that are at least `logit`.
int32_t count_at_least_cpu(const float* logits, int32_t size, float logit);

// The k best tokens of logits [size], best first; what is not a number counts as -infinity.
std::vector<ScoredToken> top_tokens_cpu(const float* logits, int32_t size, int32_t vocab_begin, int32_t k);

}  // namespace lorikeet::kernels
