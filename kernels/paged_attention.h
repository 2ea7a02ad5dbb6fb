// Attention over a paged KV cache (Kwon et al., 2023): prompt chunks and decode rows in one batch, grouped query heads.
#pragma once

#include <cstdint>

#include "kernels/thread_pool.h"

namespace lorikeet::kernels {

// One layer's keys and values on the CPU: both [blocks, kv_heads, block_size, head_dim] of float32. Position p of a
// sequence is in block block_table[p / block_size], at p % block_size.
struct KvCacheCpu {
  float* keys = nullptr;
  float* values = nullptr;
  int32_t kv_heads = 0;
  int32_t block_size = 0;
  int32_t head_dim = 0;

  int64_t offset(int32_t block, int32_t kv_head, int32_t in_block) const {
    return ((static_cast<int64_t>(block) * kv_heads + kv_head) * block_size + in_block) * head_dim;
  }
};

// One token of the batch.
struct AttentionToken {
  int32_t position = 0;                  // it attends to positions 0 .. position, all of them in the cache
  const int32_t* block_table = nullptr;  // of its sequence
};

// Stores k and v [tokens, kv_heads, head_dim] (rows `stride` floats apart) at the tokens' positions.
void store_kv_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* k, const float* v,
                  int64_t stride);

// out [count, heads, head_dim] = softmax(q k^T / sqrt(head_dim)) v for q [count, heads, head_dim]; query head h uses KV
// head h / (heads / kv_heads). Positions are taken in order, so that a token's result depends on nothing else in the
// batch.
void paged_attention_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* q,
                         int32_t heads, float* out, ThreadPool& pool);

}  // namespace lorikeet::kernels
