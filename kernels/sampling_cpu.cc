#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/philox.h"
#include "kernels/sampling.h"

namespace lorikeet::kernels {
namespace {

float noise_of(const DrawParameters& draw, int32_t token_id) {
  const float u = noise_uniform(noise_bits(draw.seed, draw.position, token_id));
  return -std::log(-std::log1p(-u));
}

// Marks what top_p drops among `kept` (best first): ascending, while the cumulative probability is at most 1 - top_p;
// the best is never dropped. Returns how many stay.
size_t keep_top_p(const std::vector<ScoredToken>& kept, float top_p) {
  std::vector<float> weights;
  float total = 0;
  for (const ScoredToken& token : kept) {
    weights.push_back(std::exp(token.score - kept.front().score));
    total += weights.back();
  }
  size_t count = kept.size();
  float dropped = 0;
  while (count > 1) {
    dropped += weights[count - 1] / total;
    if (dropped > 1 - top_p) break;
    --count;
  }
  return count;
}

}  // namespace

float penalized_logit_cpu(float logit, const PenaltyParameters& penalty, int32_t in_output) {
  logit = logit > 0 ? logit / penalty.repetition : logit * penalty.repetition;
  if (in_output == 0) return logit;
  return logit - penalty.frequency * static_cast<float>(in_output) - penalty.presence;
}

ScoredToken best_token_cpu(const float* logits, int32_t size, int32_t vocab_begin, const DrawParameters& draw) {
  ScoredToken best;
  for (int32_t i = 0; i < size; ++i) {
    if (std::isnan(logits[i])) continue;
    ScoredToken token{logits[i], vocab_begin + i};
    if (!draw.greedy()) token.score = logits[i] / draw.temperature + noise_of(draw, token.token_id);
    if (token.better_than(best)) best = token;
  }
  return best;
}

int32_t draw_filtered_cpu(const float* logits, int32_t vocab, const DrawParameters& draw) {
  std::vector<ScoredToken> kept;
  kept.reserve(static_cast<size_t>(vocab));
  float best = -INFINITY;
  for (int32_t i = 0; i < vocab; ++i) {
    if (!std::isnan(logits[i])) best = std::max(best, logits[i] / draw.temperature);
  }
  const float floor = draw.min_p > 0 ? best + std::log(draw.min_p) : -INFINITY;
  for (int32_t i = 0; i < vocab; ++i) {
    const float score = logits[i] / draw.temperature;
    if (score >= floor) kept.push_back({score, i});
  }
  const auto better = [](const ScoredToken& a, const ScoredToken& b) { return a.better_than(b); };
  if (draw.top_k > 0 && static_cast<size_t>(draw.top_k) < kept.size()) {
    std::nth_element(kept.begin(), kept.begin() + draw.top_k - 1, kept.end(), better);
    const float last = kept[static_cast<size_t>(draw.top_k) - 1].score;  // what ties with it stays
    std::erase_if(kept, [last](const ScoredToken& token) { return token.score < last; });
  }
  if (draw.top_p < 1 && !kept.empty()) {
    std::sort(kept.begin(), kept.end(), better);
    kept.resize(keep_top_p(kept, draw.top_p));
  }
  ScoredToken winner;
  for (const ScoredToken& token : kept) {
    const ScoredToken noisy{token.score + noise_of(draw, token.token_id), token.token_id};
    if (noisy.better_than(winner)) winner = noisy;
  }
  return winner.token_id;
}

LogitMass logit_mass_cpu(const float* logits, int32_t size) {
  LogitMass mass{-INFINITY, 0};
  for (int32_t i = 0; i < size; ++i) mass.max = std::max(mass.max, logits[i]);
  for (int32_t i = 0; i < size; ++i) mass.sum += std::exp(logits[i] - mass.max);
  return mass;
}

float log_normalizer_cpu(const LogitMass* parts, int32_t count) {
  float max = -INFINITY;
  for (int32_t i = 0; i < count; ++i) max = std::max(max, parts[i].max);
  float sum = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (parts[i].sum > 0) sum += parts[i].sum * std::exp(parts[i].max - max);
  }
  return max + std::log(sum);
}

std::vector<ScoredToken> top_tokens_cpu(const float* logits, int32_t size, int32_t vocab_begin, int32_t k) {
  std::vector<ScoredToken> tokens(static_cast<size_t>(size));
  for (int32_t i = 0; i < size; ++i) tokens[static_cast<size_t>(i)] = {logits[i], vocab_begin + i};
  const auto count = static_cast<std::ptrdiff_t>(std::min(k, size));
  std::partial_sort(tokens.begin(), tokens.begin() + count, tokens.end(),
                    [](const ScoredToken& a, const ScoredToken& b) { return a.better_than(b); });
  tokens.resize(static_cast<size_t>(count));
  return tokens;
}

}  // namespace lorikeet::kernels
