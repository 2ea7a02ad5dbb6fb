#include <cmath>

#include "kernels/silu_mul.h"

namespace lorikeet::kernels {

void silu_mul_cpu(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
}

}  // namespace lorikeet::kernels
