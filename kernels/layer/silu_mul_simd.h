// The vectorised loop of the MLP's gate on the CPU.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {

// y = silu(gate) * up, [count] each.
using SiluMulLoop = void(const float* gate, const float* up, int64_t count, float* y);

template <CpuIsa>
SiluMulLoop* silu_mul_for();
template <>
SiluMulLoop* silu_mul_for<CpuIsa::avx2>();
template <>
SiluMulLoop* silu_mul_for<CpuIsa::avx512>();
template <>
SiluMulLoop* silu_mul_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
SiluMulLoop* silu_mul_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
