#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {

CpuIsa best_cpu_isa() {
#if defined(__x86_64__)
  static const CpuIsa best = [] {
    __builtin_cpu_init();
    // Every machine with AVX2 has F16C.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      return CpuIsa::avx512;
    }
    if (avx2) return CpuIsa::avx2;
    return CpuIsa::plain;
  }();
  return best;
#else
  return CpuIsa::plain;
#endif
}

}  // namespace lorikeet::kernels
