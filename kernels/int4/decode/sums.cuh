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

  // Asks for the pieces of every warps-th half of a tile; those that have no room come to the L2. They count on a barrier
  // of 32 arrivals for each of the warps.
  __device__ __forceinline__ void stage(int index, int warps, uint32_t barrier) const {
    constexpr int kVectors = kPieceBytes / 16;
    constexpr int kTogether = device::kWarpSize / kVectors;  // pieces of a warp
    const int lane = threadIdx.x % device::kWarpSize;
#pragma unroll 1
    for (int half = index; half < 2 * tiles.count; half += warps) {
      const LoraOutput of = lora_output(p, o, tiles[half / 2], half % 2 * 8);
      if (of.projection < 0) continue;
      const GroupLora last = shared.groups[of.projection][max(shared.group_count, 1) - 1];
      const int before = half * shared.most_blocks;
      const RankBlock* blocks = shared.blocks(p, of.projection);
      const int64_t tile_of_b = of.output / lora::kOutputTile;
      const int in_tile = of.output % lora::kOutputTile * (kPieceBytes / 8) + lane % kVectors * 16;
      uint32_t to = device::shared_address(pieces_) + (before + lane / kVectors) * kPieceBytes + lane % kVectors * 16;
#pragma unroll 2
      for (int block = lane / kVectors; block < last.first + last.count; block += kTogether) {
        const unsigned char* from = blocks[block].b + tile_of_b * blocks[block].tile_bytes + in_tile;
        if (before + block < p.pieces) {
          device::copy_async_16(to, from, true);
        } else if (lane % kVectors == 0) {
          asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
        }
        to += kTogether * kPieceBytes;
      }
    }
    device::barrier_arrive_with_copies(barrier);
  }

  // The sums of all tiles, cut into parts of up to four adapters, which whatever warp is free takes one after the other,
  // beginning with the last tiles, of which B may have found no room. v and B are there with these barriers; a barrier of
  // the block must follow.
  template <class T>
  __device__ __forceinline__ void make_sums(int m, uint32_t v_there, uint32_t b_there) const {
    constexpr int kOfPart = 4;
    const int lane = threadIdx.x % device::kWarpSize;
    const int groups = shared.group_count;
    const bool halved = groups > kOfPart;
    static_assert(kMostTokens <= 2 * kOfPart);
    const int parts = groups == 0 ? 0 : count_halves() << (halved ? 1 : 0);
#pragma unroll 1
    while (true) {
      int taken = 0;
      if (lane == 0) taken = atomicAdd(&shared.parts_taken, 1);
      const int part = parts - 1 - __shfl_sync(device::kFullWarp, taken, 0);
      if (part < 0) return;
      const Halves halves(*this, halved ? part / 2 : part);
      const int first = halved && part % 2 != 0 ? kOfPart : 0;
      const int end = halved && first == 0 ? kOfPart : groups;
      const bool together = halves.of[0].projection == halves.of[1].projection;
#pragma unroll 1
      for (int i = 0; i < (together ? 1 : 2); i++) {
        const int projection = i == 0 ? halves.of[0].projection : halves.of[1].projection;
        if (projection < 0) continue;
        add_groups<T>(halves, projection, together || i == 0, together || i == 1, first, end, m, v_there, b_there);
      }
    }
  }

 private:
  // B v of adapters first .. end for the tokens of each, for the halves asked for, which belong to one projection. Two
  // adapters of equal rank are taken together: the steps of one wait for each other.
  template <class T>
  __device__ __forceinline__ void add_groups(const Halves& halves, int projection, bool low, bool high, int first,
                                             int end, int m, uint32_t v_there, uint32_t b_there) const {
    const int highest = (high ? halves.tile[1] * 2 + halves.half[1] : halves.tile[0] * 2 + halves.half[0]);
    const int in_shared = p.pieces - highest * shared.most_blocks;  // of the projection's blocks
    const GroupLora* groups = shared.groups[projection];
    for (int e = first; e < end; e++) {
      const GroupLora group = groups[e];
      if (group.first + group.count > in_shared) {
        return add_groups_of_memory<T>(halves, projection, low, high, e, end, m, v_there);
      }
      device::barrier_wait(v_there, 0);
      device::barrier_wait(b_there, 0);
      const GroupLora next = e + 1 < end ? groups[e + 1] : GroupLora{};
      if (next.count == group.count && next.first + next.count <= in_shared) {
        const GroupLora both[2] = {group, next};
        add_blocks<T, 2>(halves, projection, low, high, both, m);
        e++;
      } else {
        add_blocks<T, 1>(halves, projection, low, high, &group, m);
      }
    }
  }

  // sums[e]: of row g of half e / 2 and token 2 t + e % 2. Columns of tokens that the adapter does not have hold what is
  // not used.
  __device__ __forceinline__ void store_sums(const Halves& halves, bool low, bool high, uint32_t members, int m,
                                             const float (&sums)[4]) const {
    const int lane = threadIdx.x % device::kWarpSize;
    const int token = lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (i == 0 ? !low : !high) continue;
      float* to = shared.sums(p, m) + (halves.tile[i] * m + token) * kTileRows + halves.half[i] * 8 + lane / 4;
      if ((members >> token & 1) != 0) to[0] = sums[2 * i];
      if ((members >> token & 2) != 0) to[kTileRows] = sums[2 * i + 1];
    }
  }

  __device__ __forceinline__ static int in_piece() {
    const int lane = threadIdx.x % device::kWarpSize;
    const int g = lane / 4;
    return (g % 2 * 4 + lane % 4) * 16 + g / 2 * 4;
  }
  __device__ __forceinline__ const RankPair* v_of_lane(int projection, int m) const {
    const int lane = threadIdx.x % device::kWarpSize;
    return shared.v(p) + (projection * m + min(lane / 4, m - 1)) * p.v_stride + lane % 4;
  }
  template <class T>
  __device__ __forceinline__ static void add_block(uint32_t low_word, uint32_t high_word, bool use_low, bool use_high,
                                                   const RankPair& x, float (&sums)[4]) {
    const float2 low = device::unpack<T>(use_low ? low_word : 0);
    const float2 high = device::unpack<T>(use_high ? high_word : 0);
    const uint32_t a[4] = {__float_as_uint(low.x), __float_as_uint(high.x), __float_as_uint(low.y),
                           __float_as_uint(high.y)};
    lora::mma_tf32(sums, a, x.rest[0], x.rest[1]);
    lora::mma_tf32(sums, a, x.main[0], x.main[1]);
  }

  // Of adapters whose B is in shared memory.
  template <class T, int kGroups>
  __device__ __forceinline__ void add_blocks(const Halves& halves, int projection, bool low, bool high,
                                             const GroupLora* groups, int m) const {
    const RankPair* v = v_of_lane(projection, m);
    const auto place = [&](int half) {
      return device::shared_address(pieces_) + half * shared.most_blocks * kPieceBytes + in_piece();
    };
    const int low_half = halves.tile[0] * 2 + halves.half[0];
    const int high_half = halves.tile[1] * 2 + halves.half[1];
    const uint32_t low_b = place(low ? low_half : high_half);
    const uint32_t high_b = place(high ? high_half : low_half);
    float sums[kGroups][4] = {};
#pragma unroll 2
    for (int block = 0; block < groups[0].count; block++) {
      const RankPair x = v[block * (lora::kRankTile / 2)];
#pragma unroll
      for (int i = 0; i < kGroups; i++) {
        const int at = (groups[i].first + block) * kPieceBytes;
        uint32_t low_word, high_word;
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(low_word) : "r"(low_b + at));
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(high_word) : "r"(high_b + at));
        add_block<T>(low_word, high_word, low, high, x, sums[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kGroups; i++) store_sums(halves, low, high, groups[i].members, m, sums[i]);
  }

  // Of those whose B is not: so many blocks on their way at a time, the first before v is there.
  template <class T>
  __device__ __forceinline__ void add_groups_of_memory(const Halves& halves, int projection, bool low, bool high,
                                                       int first, int end, int m, uint32_t v_there) const {
    constexpr int kTogether = 8;
    const RankPair* v = v_of_lane(projection, m);
    const RankBlock* blocks = shared.blocks(p, projection);
    const GroupLora* groups = shared.groups[projection];
    const int low_output = low ? halves.of[0].output : halves.of[1].output;
    const int high_output = high ? halves.of[1].output : halves.of[0].output;
    const int last = groups[end - 1].first + groups[end - 1].count;
    float sums[4] = {};
    GroupLora group = groups[first];
    const auto next_group = [&] {
      store_sums(halves, low, high, group.members, m, sums);
#pragma unroll
      for (float& sum : sums) sum = 0;
      first++;
      if (first < end) group = groups[first];
    };
#pragma unroll 1
    for (int begin = group.first; begin < last; begin += kTogether) {
      uint32_t words[kTogether][2];
#pragma unroll
      for (int i = 0; i < kTogether; i++) {
        const RankBlock& block = blocks[min(begin + i, last - 1)];
        words[i][0] = __ldg(reinterpret_cast<const uint32_t*>(piece_of(block, low_output) + in_piece()));
        words[i][1] = __ldg(reinterpret_cast<const uint32_t*>(piece_of(block, high_output) + in_piece()));
      }
      device::barrier_wait(v_there, 0);
#pragma unroll
      for (int i = 0; i < kTogether; i++) {
        if (begin + i >= last) break;
        while (begin + i >= group.first + group.count) next_group();
        const int in_group = begin + i - group.first;
        add_block<T>(words[i][0], words[i][1], low, high, v[in_group * (lora::kRankTile / 2)], sums);
      }
    }
    while (first < end) next_group();
  }
};

}  // namespace lorikeet::kernels::int4
