// The inner loops of the CPU's matrix products, one set per instruction set: outputs [n_begin, n_end) for all m rows of
// x. What calls them (int4_gemm_cpu.cc, dense_gemm_cpu.cc) prepares x and shares the outputs out to threads.
#pragma once

#include <cstdint>

#include "kernels/cpu_isa.h"
#include "kernels/dense_weight.h"
#include "kernels/int4_weight.h"

namespace lorikeet::kernels {

// The first n_begin is a multiple of this where a loop is cut.
inline constexpr int64_t kGemmRowGrain = 8;

struct GemmRows {
  // xs [m, weight.k] in split order: of every 32 inputs first the 16 at even places, then those at odd ones, as the
  // nibbles of a stored byte belong together.
  void (*int4)(const Int4Weight& weight, const float* xs, int32_t m, float* y, int64_t y_stride, int64_t n_begin,
               int64_t n_end);
  void (*dense)(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y, int64_t y_stride,
                int64_t n_begin, int64_t n_end);
};

// Null where `isa` is plain or was not compiled for.
const GemmRows* gemm_rows_of(CpuIsa isa);

const GemmRows* gemm_rows_avx2();
const GemmRows* gemm_rows_avx512();

}  // namespace lorikeet::kernels
