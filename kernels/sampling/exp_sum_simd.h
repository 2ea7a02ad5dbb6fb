// The vectorised loop of a softmax's denominator on the CPU.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {

// Sum of exp(x - max) over x [count].
using ExpSumLoop = float(const float* x, int64_t count, float max);

template <CpuIsa>
ExpSumLoop* exp_sum_for();
template <>
ExpSumLoop* exp_sum_for<CpuIsa::avx2>();
template <>
ExpSumLoop* exp_sum_for<CpuIsa::avx512>();
template <>
ExpSumLoop* exp_sum_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
ExpSumLoop* exp_sum_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
