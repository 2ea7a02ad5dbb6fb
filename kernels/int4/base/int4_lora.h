// LoRA inside of the int4 product for few tokens: what the product needs to make y = f * (W x + scale * B (A x)) by
// itself, without a kernel behind it. A x of one token is made by the product's blocks, that of several by a kernel in
// front of it. The result has the bits of kernels/lora/lora_cuda.h.
#pragma once

#include <cstdint>

#include "kernels/lora/lora_cuda.h"

namespace lorikeet::kernels {

// Adapters of higher ranks take the kernels of their own (kernels/lora/lora_cuda.h): A x of all tokens must find room
// in shared memory.
inline constexpr int32_t kMostFusedRank = 128;
inline constexpr int32_t kMostFusedTokens = 8;      // in a product, likewise
inline constexpr int32_t kMostFusedInputs = 16384;  // likewise: eight lanes add the parts of an element

// Memory through which the blocks of a product of one token give each other A x. A number is kLoraNoSum there until it has come, so
// what a product has left must be forgotten before another one takes its place.
inline constexpr uint32_t kLoraNoSum = 0xffffffff;
struct LoraCleared {
  void* from = nullptr;
  int32_t vectors = 0;  // of 16 bytes
};
struct Int4LoraTurn {
  float* slices = nullptr;
  LoraCleared cleared[2];  // what the product forgets: left by products before it
  float* parts = nullptr;  // of several tokens: A x, made by a kernel in front of the product
};

// All pointers are to device memory. Rows and adapters are read there: a captured graph serves every mix.
struct Int4Lora {
  DeviceLoraTable table;
  LoraRows rows;      // as many as the product has tokens
  LoraLinear linear;  // the projections whose outputs are the product's, in their order
  Int4LoraTurn turn;
  // Where A x is made by a kernel in front (Int4Gemm::takes_x_for_lora), or null: x has been written when this counter
  // has come to x_blocks, by kernels that have all begun (kernels/cuda/WAITING.md, way 2); and the counter to which every
  // block of the product, Int4Gemm::lora_blocks of them, adds 1 when it has written its outputs.
  const uint32_t* x_done = nullptr;
  int32_t x_blocks = 0;
  uint32_t* done = nullptr;
};

// What a launch reserves room for.
struct Int4LoraSize {
  int32_t projections = 0;  // 0: no LoRA
  int32_t max_rank = 0;
};

// The products of a stream take turns at this memory. The first in a step takes turn 0, the next turn 1 and so on: at
// least two, or the next step would find what the first has left. All products of a step have as many tokens.
class Int4LoraScratch {
 public:
  static Result<Int4LoraScratch> make(int32_t max_inputs, int32_t max_rank, const Stream& stream);
  Int4LoraTurn turn(int32_t number, int32_t tokens) const;

 private:
  DeviceBuffer memory_;
  int32_t token_floats_ = 0;  // of each of three places of slices
};

}  // namespace lorikeet::kernels
