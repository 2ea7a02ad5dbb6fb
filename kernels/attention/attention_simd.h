// The vectorised loop of attention on the CPU, and what one call of it works on.
#pragma once

#include <cstdint>

#include "kernels/attention/kv_cache_cpu.h"
#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {

inline constexpr int32_t kAttentionRows = 6;     // query vectors of a tile, at the most
inline constexpr int32_t kAttentionChunk = 256;  // positions that the running softmax takes at a time

// Floats of scratch memory (on a cache line) that a call needs: scores, and one vector of sums per row.
inline constexpr int64_t kAttentionScratch = kAttentionRows * (kAttentionChunk + 16);

// Query vectors of one sequence that share a KV head.
struct AttentionTile {
  const KvCacheCpu* cache = nullptr;
  const int32_t* block_table = nullptr;
  int32_t kv_head = 0;
  int32_t rows = 0;
  const float* q[kAttentionRows] = {};    // [head_dim] each
  float* out[kAttentionRows] = {};        // [head_dim] each
  int32_t position[kAttentionRows] = {};  // row r attends to positions 0 .. position[r]
};

using AttendLoop = void(const AttentionTile& tile, float* scratch);  // scratch [kAttentionScratch]

template <CpuIsa>
AttendLoop* attend_for();
template <>
AttendLoop* attend_for<CpuIsa::avx2>();
template <>
AttendLoop* attend_for<CpuIsa::avx512>();
template <>
AttendLoop* attend_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
AttendLoop* attend_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
