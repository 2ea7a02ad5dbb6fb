// The vectorised loop of LoRA's second product on the CPU.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {

// y[j][n] = (y[j][n] + scale * sum over r of low[j][r] * b[r][n]) * factor[n] for j < m and n in [n_begin, n_end).
// b [rank, b_stride]; rows of low are rank floats apart; factor may be null. y: m pointers to rows.
using LowRankUpdateLoop = void(const float* low, int32_t rank, const float* b, int64_t b_stride, float scale,
                               const float* factor, float* const* y, int32_t m, int64_t n_begin, int64_t n_end);

template <CpuIsa>
LowRankUpdateLoop* low_rank_update_for();
template <>
LowRankUpdateLoop* low_rank_update_for<CpuIsa::avx2>();
template <>
LowRankUpdateLoop* low_rank_update_for<CpuIsa::avx512>();
template <>
LowRankUpdateLoop* low_rank_update_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
LowRankUpdateLoop* low_rank_update_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
