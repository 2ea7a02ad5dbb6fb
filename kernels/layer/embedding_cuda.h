// The device version of the embedding lookup, with the adapters' embedding deltas.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

// The embedding pair of the adapter in one slot; rank 0: it has none. y = E[id] + scale * B A[:, id].
struct DeviceEmbeddingLora {
  const void* a = nullptr;  // [vocab, rank], activation type: A transposed, so that a token's column is contiguous
  const void* b = nullptr;  // [hidden, rank], activation type
  int32_t rank = 0;         // at most kMaxEmbeddingLoraRank
  float scale = 0;
};
inline constexpr int32_t kMaxEmbeddingLoraRank = 512;

// All pointers are to device memory.
struct EmbeddingArgs {
  const int32_t* token_ids = nullptr;  // [tokens]; an id, or ~row: the token that `drawn[row]` holds
  const int32_t* drawn = nullptr;      // draws of the previous step
  const void* weight = nullptr;        // [vocab, hidden] of `dtype`
  Dtype dtype = Dtype::f16;            // F16 or BF16
  int32_t vocab = 0;
  int32_t hidden = 0;  // a multiple of 8
  int32_t tokens = 0;
  const int32_t* slots = nullptr;             // [tokens], -1: no adapter; null: no token has one
  const DeviceEmbeddingLora* lora = nullptr;  // [slots]

  // The counters of the step's kernels, which begin at 0.
  uint32_t* done_counters = nullptr;  // out [num_done_counters]
  int32_t num_done_counters = 0;

  int32_t* resolved = nullptr;  // out [tokens]: the ids
  float* residual = nullptr;    // out [tokens, hidden]
};

// Ids outside the vocabulary read its nearest row: the host refuses them before they come here.
void embedding_cuda(const EmbeddingArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
