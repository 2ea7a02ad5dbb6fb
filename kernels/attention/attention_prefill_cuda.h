// Paged causal attention for rows of several query tokens (prompts, whole or in chunks), after their keys and values
// have been written to the cache. Online softmax over tiles of keys: Dao, "FlashAttention-2", 2023.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/kv_cache.h"

namespace lorikeet::kernels {

// Queries of one thread block.
inline constexpr int32_t kPrefillQueryTile = 64;

// All pointers are to device memory.
struct PrefillAttentionArgs {
  const void* q = nullptr;   // token i's query begins at element i * q_stride: [heads, head_dim] of `dtype`
  int64_t q_stride = 0;      // elements
  void* out = nullptr;       // [tokens, heads, head_dim] of `dtype`
  Dtype dtype = Dtype::f16;  // F16 or BF16
  int32_t heads = 0;         // a multiple of cache.kv_heads
  KvCacheLayer cache;
  float scale = 0;  // of the scores: head_dim^-0.5

  // The rows: queries [first_tokens, first_tokens + counts) are at positions [starts, starts + counts).
  const int32_t* first_tokens = nullptr;  // [rows]
  const int32_t* counts = nullptr;        // [rows]
  const int32_t* starts = nullptr;        // [rows]
  const int32_t* table_begins = nullptr;  // [rows]: where the row's block table begins in block_tables
  const int32_t* block_tables = nullptr;

  // The work: tile i is queries [tile_firsts[i], + kPrefillQueryTile) of row tile_rows[i], cut at the row's count.
  const int32_t* tile_rows = nullptr;
  const int32_t* tile_firsts = nullptr;
  int32_t tiles = 0;
};

// A token's result depends on its position and its own sequence only, not on how the prompt was cut into chunks of more
// than one token.
void prefill_attention_cuda(const PrefillAttentionArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
