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

  // Two halves of tiles that the tensor cores take together: those of one tile, or of gate or up of two.
  struct Halves {
    int tile[2], half[2];
    LoraOutput of[2];
    __device__ __forceinline__ Halves(const TilesOfB& b, int index) {
      const bool paired = b.o.paired;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        tile[i] = paired ? index / 2 * 2 + i : index;
        half[i] = paired ? index % 2 : i;
        of[i] = {-1, 0};
        if (tile[i] < b.tiles.count) of[i] = lora_output(b.p, b.o, b.tiles[tile[i]], half[i] * 8);
      }
    }
  };
  __device__ __forceinline__ int count_halves() const {
    return o.paired ? (tiles.count + 1) / 2 * 2 : tiles.count;
  }

  // The sums of all tiles are cut into those of adapters first .. end of two halves, where tiles are too few for so many
  // warps. each(halves, first, end) is called for what falls to warp `index`.
  template <class Each>
  __device__ __forceinline__ void for_each(int index, int warps, Each&& each) const {
    const int groups = shared.group_count;
    int sharing_log2 = 0;
    while (sharing_log2 < 2 && count_halves() << sharing_log2 < 2 * warps && 2 << sharing_log2 <= groups)
      sharing_log2++;
#pragma unroll 1
    for (int i = index; i < count_halves() << sharing_log2; i += warps) {
      const int part = i & ((1 << sharing_log2) - 1);
      const int first = part * groups >> sharing_log2;
      const int end = (part + 1) * groups >> sharing_log2;
      if (first < end) each(Halves(*this, i >> sharing_log2), first, end);
    }
  }

  struct Blocks {
    int first, end;
  };
  __device__ __forceinline__ Blocks blocks_of(int projection, int first, int end) const {
    const GroupLora last = shared.groups[projection][end - 1];
    return {shared.groups[projection][first].first, last.first + last.count};
  }

  // Asks for the pieces that make_sums of the same warp takes; those that have no room come to the L2.
  __device__ __forceinline__ void stage(int index, int warps) const {
    constexpr int kVectors = kPieceBytes / 16;
    const int lane = threadIdx.x % device::kWarpSize;
    for_each(index, warps, [&](const Halves& halves, int first, int end) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const LoraOutput of = halves.of[i];
        if (of.projection < 0) continue;
        const Blocks blocks = blocks_of(of.projection, first, end);
        const int before = (halves.tile[i] * 2 + halves.half[i]) * shared.most_blocks;
#pragma unroll 1
        for (int v = blocks.first * kVectors + lane; v < blocks.end * kVectors; v += device::kWarpSize) {
          const unsigned char* from =
              piece_of(shared.blocks(p, of.projection)[v / kVectors], of.output) + v % kVectors * 16;
          if (before + v / kVectors < p.pieces) {
            device::copy_async_16(device::shared_address(pieces_ + before * kPieceBytes + v * 16), from, true);
          } else if (v % kVectors == 0) {
            asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
          }
        }
      }
    });
    device::commit_async_copies();
  }

  // When v and the warp's own B are there; a barrier of the block must follow.
  template <class T>
  __device__ __forceinline__ void make_sums(int index, int warps, int m) const {
    const int lane = threadIdx.x % device::kWarpSize;
    for_each(index, warps, [&](const Halves& halves, int first, int end) {
      const bool mine = lane >= first && lane < end;
      const uint32_t members = __reduce_or_sync(device::kFullWarp, mine ? shared.groups[0][lane].members : 0);
      float sums[4] = {};
      if (halves.of[0].projection == halves.of[1].projection) {
        add<T, true, true>(halves, first, end, m, sums);
      } else {
        if (halves.of[0].projection >= 0) add<T, true, false>(halves, first, end, m, sums);
        if (halves.of[1].projection >= 0) add<T, false, true>(halves, first, end, m, sums);
      }
      const int token = lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if (halves.of[i].projection < 0) continue;
        float* to = shared.sums(p, m) + (halves.tile[i] * m + token) * kTileRows + halves.half[i] * 8 + lane / 4;
        if ((members >> token & 1) != 0) to[0] = sums[2 * i];
        if ((members >> token & 2) != 0) to[kTileRows] = sums[2 * i + 1];
      }
    });
  }

 private:
  // sums += B v of adapters first .. end, for the halves asked for, which belong to one projection: sums[e] is of row
  // g of half e / 2 and token 2 t + e % 2. Adapters have different tokens: one set of sums serves all.
  template <class T, bool kLow, bool kHigh>
  __device__ __forceinline__ void add(const Halves& halves, int first, int end, int m, float (&sums)[4]) const {
    const Blocks blocks = blocks_of(halves.of[kLow ? 0 : 1].projection, first, end);
    const int highest = kHigh ? halves.tile[1] * 2 + halves.half[1] : halves.tile[0] * 2 + halves.half[0];
    const int in_shared = min(blocks.end, p.pieces - highest * shared.most_blocks);
    add_blocks<T, kLow, kHigh, true>(halves, blocks.first, in_shared, m, sums);
    if (in_shared < blocks.end) {
      add_blocks<T, kLow, kHigh, false>(halves, max(blocks.first, in_shared), blocks.end, m, sums);
    }
  }
  template <class T, bool kLow, bool kHigh, bool kShared>
  __device__ __forceinline__ void add_blocks(const Halves& halves, int first, int end, int m, float (&sums)[4]) const {
    const int lane = threadIdx.x % device::kWarpSize;
    const int g = lane / 4;
    const int projection = halves.of[kLow ? 0 : 1].projection;
    const RankBlock* block = shared.blocks(p, projection) + first;
    const RankPair* v = shared.v(p) + (projection * m + g) * p.v_stride + lane % 4;
    const int in_piece = (g % 2 * 4 + lane % 4) * 16 + g / 2 * 4;
    const auto place = [&](int i) {
      return pieces_ + ((halves.tile[i] * 2 + halves.half[i]) * shared.most_blocks + first) * kPieceBytes + in_piece;
    };
    const unsigned char* staged[2] = {place(0), place(1)};
#pragma unroll 4
    for (int e = first; e < end; e++, block++) {
      const auto words = [&](int i) {
        const unsigned char* from =
            kShared ? staged[i] + (e - first) * kPieceBytes : piece_of(*block, halves.of[i].output) + in_piece;
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
