#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/sampling/exp_sum_simd.h"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling.h"

namespace lorikeet::kernels {
namespace {

float noise_of(uint32_t bits) {
  return -std::log(-std::log1p(-noise_uniform(bits)));
}

// At least noise_of(bits), without a logarithm: E = -log(1 - u) >= u >= 2^-(1 + leading zeros).
float noise_bound(uint32_t bits) {
  return static_cast<float>(std::countl_zero(bits) + 1) * 0.6931472F + 1e-3F;
}
constexpr float kLargestNoise = 23;

bool better(const ScoredToken& a, const ScoredToken& b) {
  return a.better_than(b);
}

// How many of `tokens` top_p keeps, which are then the first ones, best first: those before which the better ones have
// less than top_p of the probability. The best always stays.
size_t keep_top_p(std::vector<ScoredToken>& tokens, float top_p) {
  float best = tokens.front().score;
  for (const ScoredToken& token : tokens) best = std::max(best, token.score);
  double total = 0;
  for (const ScoredToken& token : tokens) total += std::exp(static_cast<double>(token.score - best));
  double before = 0;
  size_t sorted = 0;
  for (size_t count = 0; count < tokens.size(); ++count) {
    if (count > 0 && !(before < static_cast<double>(top_p) * total)) return count;
    if (count == sorted) {  // few are needed as a rule
      sorted = std::min(tokens.size(), std::max<size_t>(64, 4 * sorted));
      const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(count);
      const auto end = tokens.begin() + static_cast<std::ptrdiff_t>(sorted);
      if (end != tokens.end()) std::nth_element(begin, end, tokens.end(), better);
      std::sort(begin, end, better);
    }
    before += std::exp(static_cast<double>(tokens[count].score - best));
  }
  return tokens.size();
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
    ScoredToken token{logits[i], vocab_begin + i};
    if (std::isnan(token.score)) continue;
    if (!draw.greedy()) {
      token.score /= draw.temperature;
      if (best.token_id >= 0 && token.score + kLargestNoise < best.score) continue;
      const uint32_t bits = noise_bits(draw.seed, draw.position, token.token_id);
      if (best.token_id >= 0 && token.score + noise_bound(bits) < best.score) continue;
      token.score += noise_of(bits);
    }
    if (token.better_than(best)) best = token;
  }
  return best;
}

int32_t draw_filtered_cpu(const float* logits, int32_t vocab, const DrawParameters& draw) {
  float best = -INFINITY;
  for (int32_t i = 0; i < vocab; ++i) {
    if (!std::isnan(logits[i])) best = std::max(best, logits[i] / draw.temperature);
  }
  const float floor = draw.min_p > 0 ? best + std::log(draw.min_p) : -INFINITY;
  std::vector<ScoredToken> kept;
  for (int32_t i = 0; i < vocab; ++i) {
    const float score = logits[i] / draw.temperature;
    if (score >= floor) kept.push_back({score, i});
  }
  if (draw.top_k > 0 && static_cast<size_t>(draw.top_k) < kept.size()) {
    std::nth_element(kept.begin(), kept.begin() + draw.top_k - 1, kept.end(), better);
    const float last = kept[static_cast<size_t>(draw.top_k) - 1].score;  // what ties with it stays
    std::erase_if(kept, [last](const ScoredToken& token) { return token.score < last; });
  }
  if (draw.top_p < 1 && !kept.empty()) kept.resize(keep_top_p(kept, draw.top_p));
  ScoredToken winner;
  for (const ScoredToken& token : kept) {
    const float noise = noise_of(noise_bits(draw.seed, draw.position, token.token_id));
    const ScoredToken noisy{token.score + noise, token.token_id};
    if (noisy.better_than(winner)) winner = noisy;
  }
  return std::isfinite(winner.score) ? winner.token_id : -1;
}

LogitMass logit_mass_cpu(const float* logits, int32_t size) {
  LogitMass mass{-INFINITY, 0};
  for (int32_t i = 0; i < size; ++i) mass.max = std::max(mass.max, logits[i]);
  if (mass.max == -INFINITY) return mass;
  static ExpSumLoop* const exp_sum = exp_sum_loop(best_cpu_isa());
  if (exp_sum != nullptr) {
    mass.sum = exp_sum(logits, size, mass.max);
    return mass;
  }
  double sum = 0;
  for (int32_t i = 0; i < size; ++i) sum += std::exp(logits[i] - mass.max);
  mass.sum = static_cast<float>(sum);
  return mass;
}

float log_normalizer_cpu(const LogitMass* parts, int32_t count) {
  float max = -INFINITY;
  for (int32_t i = 0; i < count; ++i) max = std::max(max, parts[i].max);
  float sum = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (parts[i].max > -INFINITY) sum += parts[i].sum * std::exp(parts[i].max - max);
  }
  return max + std::log(sum);
}

int32_t count_at_least_cpu(const float* logits, int32_t size, float logit) {
  return static_cast<int32_t>(std::count_if(logits, logits + size, [logit](float x) { return x >= logit; }));
}

std::vector<ScoredToken> top_tokens_cpu(const float* logits, int32_t size, int32_t vocab_begin, int32_t k) {
  std::vector<ScoredToken> heap;  // the worst in front
  if (k <= 0) return heap;
  for (int32_t i = 0; i < size; ++i) {
    const ScoredToken token{std::isnan(logits[i]) ? -INFINITY : logits[i], vocab_begin + i};
    if (heap.size() == static_cast<size_t>(k)) {
      if (!token.better_than(heap.front())) continue;
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.pop_back();
    }
    heap.push_back(token);
    std::push_heap(heap.begin(), heap.end(), better);
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  return heap;
}

ExpSumLoop* exp_sum_loop(CpuIsa isa) {
  return loop_for<ExpSumLoop>(isa, [](auto set) { return exp_sum_for<set()>(); });
}

}  // namespace lorikeet::kernels
