// What the parts of LoRA in the int4 product share (kernels/int4/decode/lora.cuh). Included by them.
#pragma once

#include "kernels/int4/base/int4_lora.h"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/decode/lora_parts.h"
#include "kernels/int4/decode/warps.h"
#include "kernels/lora/lora_layout.h"
#include "kernels/lora/lora_product.cuh"
#include "kernels/lora/lora_shrink.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kMostTokens = kMostFusedTokens;
inline constexpr int kLoraBarriers = 8;  // for which there is room
inline constexpr int kMostHelpers = 4;   // of one token: warps that stream and make slices of A x
inline constexpr int kSliceUnits = lora::kSliceBlocks * lora::kInputBlock / kUnitInputs;
inline constexpr int kSliceBytes = lora::kSliceBlocks * lora::kBlockBytes;  // of A
static_assert(kSliceUnits * kUnitInputs == lora::kSliceBlocks * lora::kInputBlock);
inline constexpr int kPieceBytes = 8 * lora::kRankTile * 2;  // of B: eight outputs, eight ranks

// The unit with which the slice of that unit begins.
constexpr int32_t slice_aligned(int32_t unit) {
  return unit / kSliceUnits * kSliceUnits;
}

struct DecodeLoraParams {
  const DeviceLora* entries;  // of the first projection
  int32_t slot_stride;
  const LoraCounts* counts;
  const LoraTile* tiles;
  const int32_t* order;
  float* slices;  // of one token: [slices][projections][rank_stride]
  LoraCleared cleared[2];
  const float* parts;  // of several: [part_count][m][projections][rank_stride]
  int32_t part_count;
  int32_t x_blocks;        // that count on x_done when they have written x
  const uint32_t* x_done;  // or null: x is there when the kernel in front has ended
  uint32_t* done;          // or null: where every block counts itself when it has written its outputs
  int32_t rank_stride;
  int32_t v_stride;  // lora_v_stride of the highest rank
  int32_t projections;
  int32_t slice_count;
  int32_t inputs;
  int32_t most_tiles;                  // entries of the table that may be read
  int32_t most_blocks;                 // of ranks of all tokens' adapters, of a projection
  int32_t columns[kMaxFusedLora + 1];  // where a projection's outputs begin
  // Of shared memory: LoraShared or TokenLoraShared; barriers; slices of A of one token; pieces of B.
  int32_t offset, barriers_offset, slices_offset, pieces_offset;
  int32_t pieces;  // of B for which there is room
  // Of one token: how many warps make slices, and up to which rank there is room for B.
  int32_t helpers, staged_rank;
};

// What a token's adapter does to a projection. Rank 0: nothing.
struct alignas(16) TokenLora {
  const float* dora_factor;  // or null
  float scale;
  int32_t rank;
};

// Eight ranks of an adapter.
struct alignas(16) RankBlock {
  const unsigned char* b;  // of the first tile of outputs
  int32_t tile_bytes;      // from one tile of outputs to the next
  uint16_t first_rank;
  uint16_t members;  // the adapter's tokens, a bit each
};

// The blocks of ranks of one adapter, and its tokens.
struct GroupLora {
  uint16_t first, count;  // of the projection's blocks
  uint32_t members;       // tokens, a bit each
};

// v of two ranks, each the sum of two tf32 numbers: as the tensor cores take them.
struct alignas(16) RankPair {
  uint32_t main[2], rest[2];
};

// Behind it in shared memory: the blocks [projections][most_blocks], v [projections][m][v_stride], B v
// [tiles][m][kTileRows].
struct alignas(16) LoraShared {
  TokenLora tokens[kMaxFusedLora][kMostTokens];
  GroupLora groups[kMaxFusedLora][kMostTokens];
  int32_t group_count;
  int32_t most_blocks;  // of a projection
  int32_t ranks;        // the highest, rounded up to whole blocks
  int32_t parts_taken;  // of the sums B v

  __device__ __forceinline__ RankBlock* blocks(const DecodeLoraParams& p, int projection) {
    return reinterpret_cast<RankBlock*>(this + 1) + projection * p.most_blocks;
  }
  __device__ __forceinline__ RankPair* v(const DecodeLoraParams& p) {
    return reinterpret_cast<RankPair*>(blocks(p, p.projections));
  }
  __device__ __forceinline__ float* sums(const DecodeLoraParams& p, int m) {
    return reinterpret_cast<float*>(v(p) + p.projections * m * p.v_stride);
  }
};

// Pairs of ranks between tokens' v: rows of neighbouring tokens in other banks.
constexpr int32_t lora_v_stride(int32_t max_rank) {
  return (max_rank + 15) / 16 * 8 + 4;
}
constexpr int32_t lora_most_blocks(int32_t max_rank, int32_t m) {
  return m * lora::rank_tiles(max_rank);
}
constexpr uint64_t lora_shared_bytes(const Int4LoraSize& size, int32_t m, int32_t tiles) {
  const auto blocks = static_cast<uint64_t>(size.projections * lora_most_blocks(size.max_rank, m));
  const auto pairs = static_cast<uint64_t>(size.projections * m * lora_v_stride(size.max_rank));
  const auto floats = static_cast<uint64_t>(tiles * m * kTileRows);
  return sizeof(LoraShared) + blocks * sizeof(RankBlock) + pairs * sizeof(RankPair) + floats * sizeof(float);
}

// By the host; m: tokens. The places in shared memory are left open.
DecodeLoraParams decode_lora_params(const Int4Lora& lora, int32_t m);

// W x, completed by an adapter's B v.
__device__ __forceinline__ float complete_by_adapter(float base, const TokenLora& lora, int output, float sum) {
  if (lora.rank == 0) return base;
  const float complete = lora::completed(base, lora.scale, sum);
  return lora.dora_factor != nullptr ? complete * lora.dora_factor[output] : complete;
}

// Where an output of the product belongs.
struct LoraOutput {
  int projection;  // -1: behind the last
  int output;      // of the projection
};
__device__ __forceinline__ LoraOutput lora_output(const DecodeLoraParams& p, const OutputParams& o, int tile, int row) {
  if (o.paired) {
    const int output = tile * (kTileRows / 2) + row % (kTileRows / 2);
    return {output < o.n / 2 ? row / (kTileRows / 2) : -1, output};
  }
  const int column = tile * kTileRows + row;
  if (column >= o.n) return {-1, 0};
  static_assert(kMaxFusedLora == 3);
  const int projection =
      (p.projections > 1 && column >= p.columns[1] ? 1 : 0) + (p.projections > 2 && column >= p.columns[2] ? 1 : 0);
  return {projection, column - p.columns[projection]};
}

// The tiles that a block finishes: first, first + stride, ...
struct OwnTiles {
  int first, stride, count;
  __device__ __forceinline__ int operator[](int i) const { return first + i * stride; }
};

// The projections of a block's tiles: neighbours, as their outputs are.
struct OwnProjections {
  int first, last;
  __device__ __forceinline__ OwnProjections(const DecodeLoraParams& p, const OutputParams& o, const OwnTiles& tiles)
      : first(0), last(1) {
    if (o.paired) return;
    first = lora_output(p, o, tiles.first, 0).projection;
    const int last_output = min(o.n - 1, tiles[tiles.count - 1] * kTileRows + kTileRows - 1);
    last = lora_output(p, o, last_output / kTileRows, last_output % kTileRows).projection;
  }
};

}  // namespace lorikeet::kernels::int4
