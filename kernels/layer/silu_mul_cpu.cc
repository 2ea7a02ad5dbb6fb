#include <cmath>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/layer/silu_mul.h"

namespace lorikeet::kernels {

void silu_mul_plain(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
}

void silu_mul_cpu(const float* gate, const float* up, int64_t count, float* y, ThreadPool& pool) {
  const CpuKernels* kernels = best_cpu_kernels();
  if (kernels == nullptr) return silu_mul_plain(gate, up, count, y);
  pool.parallel_for(count, 1 << 15, [&](int64_t begin, int64_t end) {
    kernels->silu_mul(gate + begin, up + begin, end - begin, y + begin);
  });
}

}  // namespace lorikeet::kernels
