// Attention over a paged KV cache (Kwon et al., 2023): prompt chunks and decode rows in one batch, grouped query heads.
#pragma once

#include <cstdint>

#include "kernels/attention/kv_cache_cpu.h"
#include "kernels/cpu/thread_pool.h"

namespace lorikeet::kernels {

// One token of the batch.
struct AttentionToken {
  int32_t position = 0;                  // it attends to positions 0 .. position, all of them in the cache
  const int32_t* block_table = nullptr;  // of its sequence
};

// Stores k and v [count, kv_heads, head_dim] at the tokens' positions.
void store_kv_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* k, const float* v);

// out [count, heads, head_dim] = softmax(q k^T / sqrt(head_dim)) v for q [count, heads, head_dim]; query head h uses KV
// head h / (heads / kv_heads). A token's result has the same bits whatever else is in the batch.
void paged_attention_cpu(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* q,
                         int32_t heads, float* out, ThreadPool& pool);

// The plain version, the oracle of the others.
void paged_attention_plain(const KvCacheCpu& cache, const AttentionToken* tokens, int32_t count, const float* q,
                           int32_t heads, float* out);

}  // namespace lorikeet::kernels
