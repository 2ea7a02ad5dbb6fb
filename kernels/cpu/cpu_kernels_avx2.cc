// Compiled with AVX2, FMA and F16C; called only where the machine has them.
#include "kernels/attention/attention_simd.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/elementwise_simd.h"
#include "kernels/cpu/gemm_simd.h"
#include "kernels/cpu/simd_avx2.h"

namespace lorikeet::kernels {

const CpuKernels* cpu_kernels_avx2() {
  static constexpr CpuKernels kernels = {Avx2::kLanes,           &int4_product<Avx2>, &dense_product<Avx2>,
                                         &low_rank_update<Avx2>, &attend<Avx2>,       &silu_mul<Avx2>,
                                         &exp_sum<Avx2>};
  return &kernels;
}

}  // namespace lorikeet::kernels
