// The paged key-value cache of one layer on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lorikeet::kernels {

// Float32. Position p of a sequence is in block block_table[p / block_size], at p % block_size.
// Keys are stored with the position last, so that the scores of neighbouring positions are one vector.
struct KvCacheCpu {
  static constexpr size_t kPadding = 16;  // floats behind the last key that must be readable

  float* keys = nullptr;    // [blocks, kv_heads, head_dim, block_size]
  float* values = nullptr;  // [blocks, kv_heads, block_size, head_dim]
  int32_t kv_heads = 0;
  int32_t block_size = 0;
  int32_t head_dim = 0;

  // Where the part of a block that belongs to a KV head begins.
  int64_t offset(int32_t block, int32_t kv_head) const {
    return (static_cast<int64_t>(block) * kv_heads + kv_head) * block_size * head_dim;
  }
};

}  // namespace lorikeet::kernels
