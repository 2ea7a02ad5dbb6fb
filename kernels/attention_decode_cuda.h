// Paged attention for rows of one query token (decode).
#pragma once

#include <cstdint>

#include "kernels/device.h"
#include "kernels/dtype.h"
#include "kernels/kv_cache.h"
#include "kernels/rope_cuda.h"

namespace lorikeet::kernels {

// A row's positions are cut into splits that different thread blocks read; the splits' results are joined in the order
// of their positions. Where a row is cut depends on its own length and on the model alone, so its result does not
// depend on the batch, nor on which block finishes first.
struct SplitPolicy {
  static constexpr int32_t kMinSplit = 64;  // positions

  int32_t max_splits = 16;  // of a row

  // As many splits as let a single row fill a device of about 130 multiprocessors.
  static constexpr SplitPolicy for_kv_heads(int32_t kv_heads) {
    const int32_t splits = 128 / kv_heads;
    return {splits < 8 ? 8 : splits > 64 ? 64 : splits};
  }

  // Positions in every split but the last.
  constexpr int32_t split_length(int32_t context) const {
    const int32_t even = (context + max_splits - 1) / max_splits;
    const int32_t units = (even + kMinSplit - 1) / kMinSplit;
    return (units < 1 ? 1 : units) * kMinSplit;
  }

  // 0 for an empty context.
  constexpr int32_t splits(int32_t context) const {
    const int32_t length = split_length(context);
    return (context + length - 1) / length;
  }
};

// All pointers are to device memory. Sizes that change from step to step are read there, so that a graph can be
// replayed.
struct DecodeAttentionArgs {
  const void* q = nullptr;   // row r's query begins at element query_tokens[r] * q_stride: [heads, head_dim] of `dtype`
  int64_t q_stride = 0;      // elements
  void* out = nullptr;       // [tokens, heads, head_dim] of `dtype`, at the query's token
  Dtype dtype = Dtype::f16;  // F16 or BF16
  int32_t heads = 0;         // a multiple of cache.kv_heads
  KvCacheLayer cache;
  float scale = 0;  // of the scores: head_dim^-0.5

  const int32_t* query_tokens = nullptr;  // [rows]
  const int32_t* contexts = nullptr;  // [rows]: positions to attend to, the query's own included; 0: nothing is written
  const int32_t* table_begins = nullptr;  // [rows]: where the row's block table begins in block_tables
  const int32_t* block_tables = nullptr;
  const int32_t* split_begins =
      nullptr;       // [rows + 1]: sums of SplitPolicy::splits; the last is the number of splits of all
  int32_t rows = 0;  // at most kMaxDecodeRows
  SplitPolicy policy;
  int32_t multiprocessors = 0;

  float* workspace = nullptr;  // decode_attention_workspace(...) bytes, zeroed once when it is made

  // With `rotate`, q, k and v of the rows' tokens are as the product left them: what rope_and_store_kv_cuda does for
  // those tokens is done here, except that q stays as it is. Every row stores its own last position.
  bool rotate = false;
  RopeArgs rope;  // of the same q, heads and cache

  uint32_t* done = nullptr;  // or null: where every block adds 1 when it has written all that it writes
};
inline constexpr int32_t kMaxDecodeRows = 1024;

uint64_t decode_attention_workspace(int32_t rows, int32_t heads, int32_t kv_heads, int32_t head_dim,
                                    const SplitPolicy& policy);

// Returns the number of blocks that will add to `done`.
int32_t decode_attention_cuda(const DecodeAttentionArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
