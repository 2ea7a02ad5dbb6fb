// The device version of rotary position embedding, fused with what surrounds it: bias, per-head q/k norm (Qwen3), log-n
// scaling (Qwen v1) and the write of keys and values into the paged cache.
// Definition: transformers, apply_rotary_pos_emb: halves [0, d/2) and [d/2, d) are rotated against each other.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"
#include "kernels/base/kv_cache.h"

namespace lorikeet::kernels {

// cos and sin of every token's angles, once per step for all layers. All pointers are to device memory.
struct RopeAnglesArgs {
  const int32_t* positions = nullptr;          // [tokens]
  const float* inverse_frequencies = nullptr;  // [tables, head_dim / 2]
  const int32_t* table_of_token = nullptr;     // [tokens] or null: table 0 (dynamic NTK has one per base)
  float factor = 1;                            // multiplies cos and sin (YaRN's attention factor)
  int32_t tokens = 0;
  int32_t head_dim = 0;
  float* cos_sin = nullptr;  // out [tokens, head_dim / 2, 2]
};
void rope_angles_cuda(const RopeAnglesArgs& args, const Stream& stream);

// All pointers are to device memory.
struct RopeArgs {
  void* qkv = nullptr;  // [tokens, (heads + 2 * kv_heads) * head_dim] of `dtype`: q, k, v; q is replaced by its result
  Dtype dtype = Dtype::f16;       // F16 or BF16
  const float* bias = nullptr;    // [(heads + 2 * kv_heads) * head_dim] or null
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
  const float* cos_sin = nullptr;      // of rope_angles_cuda
  const int32_t* positions = nullptr;  // [tokens]; read where log_n_length is set
  int32_t log_n_length = 0;  // > 0: q at 1-based position i > log_n_length is scaled by ln(i) / ln(log_n_length)
  const int32_t* kv_slots = nullptr;  // [tokens]: block * block_size + position in block; -1: nothing is stored
  int32_t tokens = 0;
  int32_t heads = 0;
  KvCacheLayer cache;
};
void rope_and_store_kv_cuda(const RopeArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
