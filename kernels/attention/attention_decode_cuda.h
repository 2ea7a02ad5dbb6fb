// Paged attention for rows of one query token (decode).
#pragma once

#include <cstdint>

#include "kernels/attention/decode_division.h"
#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/kv_cache.h"
#include "kernels/layer/rope_cuda.h"

namespace lorikeet::kernels {

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
  const int32_t* pieces = nullptr;  // of DecodeDivision::write
  int32_t rows = 0;                 // at most kMaxDecodeRows
  DecodeDivision division;

  float* workspace = nullptr;  // decode_attention_workspace(...) bytes, zeroed once when it is made

  // With `rotate`, q, k and v of the rows' tokens are as the product left them: what rope_and_store_kv_cuda does for
  // those tokens is done here, except that q stays as it is. Every row attends to its own last position as it stores
  // it.
  bool rotate = false;
  RopeArgs rope;  // of the same q, heads and cache
  // [rows], for `rotate`, where the pieces were written with_runs: so many of the row's last positions are computed in
  // this step, its own and, by tokens just before its own, those of rows of the same sequence. Else every row's own
  // alone. A row's bits are the same in both cases.
  const int32_t* runs = nullptr;

  uint32_t* done = nullptr;  // or null: where every block adds 1 when it has written all that it writes
};
inline constexpr int32_t kMaxDecodeRows = 1024;
inline constexpr int32_t kMostDecodeRun =
    8;  // rows of one sequence in a step: each stores what those before it do, too

uint64_t decode_attention_workspace(int32_t rows, int32_t heads, int32_t kv_heads, int32_t head_dim);

// Returns the number of blocks that will add to `done`.
int32_t decode_attention_cuda(const DecodeAttentionArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
