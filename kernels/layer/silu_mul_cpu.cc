#include <cmath>

#include "kernels/layer/silu_mul.h"
#include "kernels/layer/silu_mul_simd.h"

namespace lorikeet::kernels {

void silu_mul_plain(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
}

void silu_mul_cpu(const float* gate, const float* up, int64_t count, float* y, ThreadPool& pool) {
  static SiluMulLoop* const loop = silu_mul_loop(best_cpu_isa());
  if (loop == nullptr) return silu_mul_plain(gate, up, count, y);
  pool.parallel_for(count, 1 << 15,
                    [&](int64_t begin, int64_t end) { loop(gate + begin, up + begin, end - begin, y + begin); });
}

SiluMulLoop* silu_mul_loop(CpuIsa isa) {
  return loop_for<SiluMulLoop>(isa, [](auto set) { return silu_mul_for<set()>(); });
}

}  // namespace lorikeet::kernels
