// The gate of the MLP.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace lorikeet::kernels {

// y [count] = silu(gate) * up, silu(x) = x / (1 + exp(-x)). y may be gate or up.
void silu_mul_cpu(const float* gate, const float* up, int64_t count, float* y, ThreadPool& pool);

// The plain version, the oracle of the others.
void silu_mul_plain(const float* gate, const float* up, int64_t count, float* y);

}  // namespace lorikeet::kernels
