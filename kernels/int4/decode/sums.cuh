// B v in the int4 product (kernels/int4/decode/lora.cuh). Included by it.
#pragma once

#include "kernels/int4/decode/lora_shared.cuh"

namespace lorikeet::kernels::int4 {

// B of a block's tiles. Eight neighbouring outputs, half a tile, belong to one projection; with eight ranks they are a
// piece of 128 neighbouring bytes. In shared memory: [tiles][halves][most_blocks] pieces, as far as there is room; they
// may take that of the slices of A, which is behind theirs.
inline constexpr int kPiecesOfSlices = kLoraWarps * kSliceBytes / kPieceBytes;

struct TilesOfB {
  const DecodeLoraParams& p;
  const OutputParams& o;
  LoraShared& shared;
  const OwnTiles& tiles;
  unsigned char* pieces_;

  __device__ __forceinline__ TilesOfB(const DecodeLoraParams& p, const OutputParams& o, unsigned char* block_memory,
                                      LoraShared& shared, const OwnTiles& tiles)
      : p(p), o(o), shared(shared), tiles(tiles), pieces_(block_memory + p.pieces_offset) {}

  __device__ __forceinline__ static const unsigned char* piece_of(const RankBlock& block, int output) {
    return block.b + static_cast<int64_t>(output / lora::kOutputTile) * block.tile_bytes +
           output % lora::kOutputTile * (kPieceBytes / 8);
  }

  // Asks for pieces: those that have room of their own, or those that take the place of the slices of A when these have
  // been read. By all warps of LoRA, which wait for them; a barrier must follow.
  __device__ __forceinline__ void stage_first() const { stage(0, p.pieces); }
  __device__ __forceinline__ void stage_rest() const { stage(p.pieces, p.pieces + kPiecesOfSlices); }
  __device__ __forceinline__ bool has_rest() const { return tiles.count * 2 * shared.most_blocks > p.pieces; }

  // By warp `index` of LoRA, when v and B are there; a barrier of the block must follow. Several warps share a tile,
  // some of the adapters each, where there are fewer tiles than warps.
  template <class T>
  __device__ __forceinline__ void make_sums(int index, int m) const {
    const int sharing = tiles.count <= kLoraWarps / 4 ? 4 : tiles.count <= kLoraWarps / 2 ? 2 : 1;
    const int groups = shared.group_count;
    const int first = index % sharing * groups / sharing;
    const int end = (index % sharing + 1) * groups / sharing;
    if (first == end) return;
    const int lane = threadIdx.x % device::kWarpSize;
    const bool mine = lane >= first && lane < end;
    const uint32_t members = __reduce_or_sync(device::kFullWarp, mine ? shared.groups[0][lane].members : 0);
    for (int tile = index / sharing; tile < tiles.count; tile += kLoraWarps / sharing) {
      const LoraOutput of[2] = {lora_output(p, o, tiles[tile], 0), lora_output(p, o, tiles[tile], 8)};
      float sums[4] = {};
      if (of[0].projection == of[1].projection) {
        add<T, true, true>(tile, of, first, end, m, sums);
      } else {
        add<T, true, false>(tile, of, first, end, m, sums);
        if (of[1].projection >= 0) add<T, false, true>(tile, of, first, end, m, sums);
      }
      float* to = shared.sums(p, m) + (tile * m + lane % 4 * 2) * kTileRows + lane / 4;
#pragma unroll
      for (int e = 0; e < 2; e++, to += kTileRows) {
        if ((members >> (lane % 4 * 2 + e) & 1) == 0) continue;
        to[0] = sums[e];
        to[8] = sums[2 + e];
      }
    }
  }

 private:
  __device__ __forceinline__ void stage(int first, int end) const {
    constexpr int kVectors = kPieceBytes / 16;
    const int most = shared.most_blocks;
    const int all = min(tiles.count * 2 * most, end) * kVectors;
    for (int v = first * kVectors + static_cast<int>(threadIdx.x); v < all; v += kLoraThreads) {
      const int piece = v / kVectors;
      const int half = piece / most;
      const int e = piece - half * most;
      const LoraOutput of = lora_output(p, o, tiles[half / 2], half % 2 * 8);
      if (of.projection < 0 || e >= shared.block_count[of.projection]) continue;
      const unsigned char* from = piece_of(shared.blocks(p, of.projection)[e], of.output) + v % kVectors * 16;
      device::copy_async_16(device::shared_address(pieces_ + v * 16), from, true);
    }
    device::commit_async_copies();
  }

  // sums += B v of adapters first .. end, for the halves of a tile asked for, which belong to one projection: sums[e]
  // is of row g + e / 2 * 8 and token 2 t + e % 2. Adapters have different tokens: one set of sums serves all.
  template <class T, bool kLow, bool kHigh>
  __device__ __forceinline__ void add(int tile, const LoraOutput (&of)[2], int first, int end, int m,
                                      float (&sums)[4]) const {
    const int projection = of[kLow ? 0 : 1].projection;
    const GroupLora last = shared.groups[projection][end - 1];
    const int first_block = shared.groups[projection][first].first;
    const int end_block = last.first + last.count;
    const int most = shared.most_blocks;
    const int in_shared = min(end_block, p.pieces + kPiecesOfSlices - (tile * 2 + (kHigh ? 1 : 0)) * most);
    add_blocks<T, kLow, kHigh, true>(tile, of, first_block, in_shared, m, sums);
    if (in_shared < end_block) {
      add_blocks<T, kLow, kHigh, false>(tile, of, max(first_block, in_shared), end_block, m, sums);
    }
  }
  template <class T, bool kLow, bool kHigh, bool kShared>
  __device__ __forceinline__ void add_blocks(int tile, const LoraOutput (&of)[2], int first, int end, int m,
                                             float (&sums)[4]) const {
    const int lane = threadIdx.x % device::kWarpSize;
    const int g = lane / 4;
    const int projection = of[kLow ? 0 : 1].projection;
    const RankBlock* block = shared.blocks(p, projection) + first;
    const RankPair* v = shared.v(p) + (projection * m + g) * p.v_stride + lane % 4;
    const int in_piece = (g % 2 * 4 + lane % 4) * 16 + g / 2 * 4;
    const int half_bytes = shared.most_blocks * kPieceBytes;
    const unsigned char* b = pieces_ + tile * 2 * half_bytes + first * kPieceBytes + in_piece;
#pragma unroll 4
    for (int e = first; e < end; e++, block++, b += kPieceBytes) {
      const auto words = [&](int half) {
        const unsigned char* from = kShared ? b + half * half_bytes : piece_of(*block, of[half].output) + in_piece;
        return device::unpack<T>(kShared ? *reinterpret_cast<const uint32_t*>(from)
                                         : __ldg(reinterpret_cast<const uint32_t*>(from)));
      };
      const float2 low = kLow ? words(0) : make_float2(0, 0);
      const float2 high = kHigh ? words(1) : make_float2(0, 0);
      RankPair x{};
      if ((block->members >> g & 1) != 0) x = v[block->first_rank / 2];
      const uint32_t a[4] = {__float_as_uint(low.x), __float_as_uint(high.x), __float_as_uint(low.y),
                             __float_as_uint(high.y)};
      lora::mma_tf32(sums, a, x.rest[0], x.rest[1]);
      lora::mma_tf32(sums, a, x.main[0], x.main[1]);
    }
  }
};

}  // namespace lorikeet::kernels::int4
