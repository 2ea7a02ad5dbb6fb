// How an adapter's pair lies on the device: blocks of 512 bytes, each one 16-byte load of every lane of a warp, in the
// order in which the tensor cores take it as operand B (PTX ISA, "Matrix fragments for mma.m16n8k16"). The true rank is
// rounded up to 8 with zeros, outputs and inputs to 32.
//
// With g = lane / 4 and t = lane % 4 a lane's eight elements are
// A [rank, inputs]: block (8 ranks, 32 inputs): rank g, inputs 8 t .. 8 t + 7. [rank tiles][input blocks] blocks.
// B [outputs, rank]: block (32 outputs, 8 ranks): element 2 i + e is output 8 (g / 2) + 2 i + g % 2, rank 2 t + e.
//   [output tiles][rank tiles] blocks. So the sums of a lane are those of eight neighbouring outputs.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"

namespace lorikeet::kernels::lora {

inline constexpr int32_t kRankTile = 8;
inline constexpr int32_t kInputBlock = 32;
inline constexpr int32_t kOutputTile = 32;
inline constexpr int32_t kBlockBytes = 512;

constexpr int32_t rank_tiles(int32_t rank) {
  return (rank + kRankTile - 1) / kRankTile;
}
// Ranks of a row of v.
constexpr int32_t padded_rank(int32_t rank) {
  return rank_tiles(rank) * kRankTile;
}
constexpr int32_t input_blocks(int32_t inputs) {
  return (inputs + kInputBlock - 1) / kInputBlock;
}
constexpr int32_t output_tiles(int32_t outputs) {
  return (outputs + kOutputTile - 1) / kOutputTile;
}
constexpr uint64_t a_tile_bytes(int32_t inputs) {
  return static_cast<uint64_t>(input_blocks(inputs)) * kBlockBytes;
}
constexpr uint64_t b_tile_bytes(int32_t rank) {
  return static_cast<uint64_t>(rank_tiles(rank)) * kBlockBytes;
}
constexpr uint64_t a_bytes(int32_t rank, int32_t inputs) {
  return static_cast<uint64_t>(rank_tiles(rank)) * a_tile_bytes(inputs);
}
constexpr uint64_t b_bytes(int32_t rank, int32_t outputs) {
  return static_cast<uint64_t>(output_tiles(outputs)) * b_tile_bytes(rank);
}

// Rank tile `tile` of A: a is [rank, inputs] of the type `from`, F32, F16 or BF16; out a_tile_bytes(inputs) of `dtype`,
// F16 or BF16.
void pack_a_tile(const void* a, Dtype from, int32_t rank, int32_t inputs, int32_t tile, Dtype dtype, uint16_t* out);

// Output tile `tile` of B: b is [outputs, rank] of the type `from`, out b_tile_bytes(rank).
void pack_b_tile(const void* b, Dtype from, int32_t rank, int32_t outputs, int32_t tile, Dtype dtype, uint16_t* out);

// values[first .. first + count) of the type `from`, as `dtype`.
void convert(const void* values, Dtype from, int64_t first, int64_t count, Dtype dtype, uint16_t* out);

// Whether a value has become an infinity or was none: weights of that kind are refused.
bool all_finite(const uint16_t* values, uint64_t count, Dtype dtype);

}  // namespace lorikeet::kernels::lora
