#include <cmath>

#include "kernels/sampling/token_constraint.h"

namespace lorikeet::kernels {

void constrain_logits_cpu(float* logits, int32_t size, int32_t vocab_begin, const TokenConstraint& constraint,
                          int32_t last_token) {
  if (!constraint.allowed.empty()) {
    for (int32_t i = 0; i < size; ++i) {
      const auto token = static_cast<uint32_t>(vocab_begin + i);
      const size_t word = token / 32;
      if (word >= constraint.allowed.size() || (constraint.allowed[word] >> token % 32 & 1) == 0) logits[i] = NAN;
    }
  }
  for (const TokenBias& bias : constraint.biases) {
    if (bias.after >= 0 && bias.after != last_token) continue;
    const int64_t i = int64_t{bias.token_id} - vocab_begin;
    if (i < 0 || i >= size) continue;
    logits[i] = bias.bias == -INFINITY ? NAN : logits[i] + bias.bias;
  }
}

}  // namespace lorikeet::kernels
