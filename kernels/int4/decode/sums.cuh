// B v in the int4 product (kernels/int4/decode/lora.cuh). Included by it.
#pragma once

#include "kernels/int4/decode/lora_shared.cuh"

namespace lorikeet::kernels::int4 {

// B of a block's tiles. Eight neighbouring outputs, half a tile, belong to one projection; with eight ranks they are a
// piece of 128 neighbouring bytes. In shared memory: [tiles][halves][most_blocks] pieces, as far as there is room.
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

  // What one of so many warps does: tiles `tile`, `tile` + step, ... of the block, adapters first .. end of each.
  // Several warps share a tile, some of the adapters each, where there are fewer tiles than warps.
  struct Part {
    int tile, step, first, end;
    __device__ __forceinline__ Part(const TilesOfB& b, int index, int warps) {
      const int sharing = b.tiles.count * 4 <= warps ? 4 : b.tiles.count * 2 <= warps ? 2 : 1;
      const int groups = b.shared.group_count;
      step = warps / sharing;
      tile = index / sharing;
      first = index % sharing * groups / sharing;
      end = (index % sharing + 1) * groups / sharing;
      if (tile >= step) end = first;  // one warp too many
    }
  };

  // Asks for the pieces that make_sums of the same warp takes, where they have room.
  __device__ __forceinline__ void stage(int index, int warps) const {
    constexpr int kVectors = kPieceBytes / 16;
    const Part part(*this, index, warps);
    if (part.first == part.end) return;
    const int lane = threadIdx.x % device::kWarpSize;
    for (int tile = part.tile; tile < tiles.count; tile += part.step) {
#pragma unroll 1
      for (int half = 0; half < 2; half++) {
        const LoraOutput of = lora_output(p, o, tiles[tile], half * 8);
        if (of.projection < 0) continue;
        const int first = shared.groups[of.projection][part.first].first;
        const GroupLora last = shared.groups[of.projection][part.end - 1];
        const int before = (tile * 2 + half) * shared.most_blocks;
        const int end = min(last.first + last.count, p.pieces - before);
        for (int v = first * kVectors + lane; v < end * kVectors; v += device::kWarpSize) {
          const unsigned char* from =
              piece_of(shared.blocks(p, of.projection)[v / kVectors], of.output) + v % kVectors * 16;
          device::copy_async_16(device::shared_address(pieces_ + before * kPieceBytes + v * 16), from, true);
        }
      }
    }
    device::commit_async_copies();
  }

  // When v and the warp's own B are there; a barrier of the block must follow.
  template <class T>
  __device__ __forceinline__ void make_sums(int index, int warps, int m) const {
    const Part part(*this, index, warps);
    if (part.first == part.end) return;
    const int lane = threadIdx.x % device::kWarpSize;
    const bool mine = lane >= part.first && lane < part.end;
    const uint32_t members = __reduce_or_sync(device::kFullWarp, mine ? shared.groups[0][lane].members : 0);
    for (int tile = part.tile; tile < tiles.count; tile += part.step) {
      const LoraOutput of[2] = {lora_output(p, o, tiles[tile], 0), lora_output(p, o, tiles[tile], 8)};
      float sums[4] = {};
      if (of[0].projection == of[1].projection) {
        add<T, true, true>(tile, of, part.first, part.end, m, sums);
      } else {
        add<T, true, false>(tile, of, part.first, part.end, m, sums);
        if (of[1].projection >= 0) add<T, false, true>(tile, of, part.first, part.end, m, sums);
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
    const int in_shared = min(end_block, p.pieces - (tile * 2 + (kHigh ? 1 : 0)) * most);
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
