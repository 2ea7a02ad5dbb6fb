#include "kernels/cpu/cpu_kernels.h"

namespace lorikeet::kernels {

const CpuKernels* cpu_kernels_of(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::avx512) return cpu_kernels_avx512();
  if (isa == CpuIsa::avx2) return cpu_kernels_avx2();
#endif
  return nullptr;
}

const CpuKernels* best_cpu_kernels() {
  static const CpuKernels* const best = cpu_kernels_of(best_cpu_isa());
  return best;
}

}  // namespace lorikeet::kernels
