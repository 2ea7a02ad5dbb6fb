// Compiled with AVX-512 (F, BW, VL); called only where the machine has them.
#include "kernels/attention/attention_simd.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/elementwise_simd.h"
#include "kernels/cpu/gemm_simd.h"
#include "kernels/cpu/simd_avx512.h"

namespace lorikeet::kernels {

const CpuKernels* cpu_kernels_avx512() {
  static constexpr CpuKernels kernels = {Avx512::kLanes,           &int4_product<Avx512>, &dense_product<Avx512>,
                                         &low_rank_update<Avx512>, &attend<Avx512>,       &silu_mul<Avx512>,
                                         &exp_sum<Avx512>};
  return &kernels;
}

}  // namespace lorikeet::kernels
