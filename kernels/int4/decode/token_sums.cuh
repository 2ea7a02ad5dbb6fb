// B v of a single token in the int4 product (kernels/int4/decode/lora_token.cuh). Included by it.
#pragma once

#include "kernels/int4/decode/lora_shared.cuh"

namespace lorikeet::kernels::int4 {

// What becomes of an output of the product: factor * (output + scale * sum).
struct alignas(16) TokenDelta {
  float scale, sum, factor, unused;
};

// Of the two halves of a tile: where v of its projection begins, and how many blocks of ranks it has.
struct alignas(16) TokenTile {
  int32_t v[2], blocks[2];
};

// In shared memory. Behind it v [projections][v_stride] and, of each tile that the block finishes, itself and the deltas of
// its outputs [kTileRows].
struct alignas(16) TokenLoraShared {
  DeviceLora pairs[kMaxFusedLora];  // rank 0: nothing
  int32_t rank;                     // the highest, rounded up to whole blocks
  int32_t tiles;                    // that the block finishes: no register is left for it
  int32_t quads;                    // of ranks that are added up for the block's projections
  uint32_t x_came[kMostHelpers];    // when, by the multiprocessor's clock

  __device__ __forceinline__ RankPair* v() { return reinterpret_cast<RankPair*>(this + 1); }
  __device__ __forceinline__ TokenTile& tile(const DecodeLoraParams& p, int i) {
    return reinterpret_cast<TokenTile*>(v() + p.projections * p.v_stride)[i * (1 + kTileRows)];
  }
  __device__ __forceinline__ TokenDelta* deltas(const DecodeLoraParams& p, int i) {
    return reinterpret_cast<TokenDelta*>(&tile(p, i) + 1);
  }
};
constexpr uint64_t token_lora_shared_bytes(const Int4LoraSize& size, int32_t tiles) {
  return sizeof(TokenLoraShared) +
         static_cast<uint64_t>(size.projections * lora_v_stride(size.max_rank)) * sizeof(RankPair) +
         static_cast<uint64_t>(tiles) * (sizeof(TokenTile) + kTileRows * sizeof(TokenDelta));
}

// B of a block's tiles, which warps divide among themselves.
template <class T>
struct TokenTilesOfB {
  const DecodeLoraParams& p;
  const OutputParams& o;
  unsigned char* memory;
  TokenLoraShared& shared;

  // Describes every warps-th tile and asks for B of it, if there is room. `entry`: in lane i, of projection i; blocks: of
  // the highest rank.
  __device__ __forceinline__ void prepare(int index, int warps, const OwnTiles& tiles, const DeviceLora& entry,
                                          int blocks) const {
    constexpr int kVectors = kPieceBytes / 16;
    const int lane = threadIdx.x % device::kWarpSize;
    const auto from_lane = [](const void* pointer, int from) {
      return reinterpret_cast<const unsigned char*>(
          __shfl_sync(device::kFullWarp, reinterpret_cast<unsigned long long>(pointer), from));
    };
    const bool has_room = blocks * lora::kRankTile <= p.staged_rank;
#pragma unroll 1
    for (int tile = index; tile < tiles.count; tile += warps) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const LoraOutput of = lora_output(p, o, tiles[tile], 8 * half);
        const int projection = max(of.projection, 0);
        const unsigned char* b = from_lane(entry.b, projection);
        const int of_rank = lora::rank_tiles(__shfl_sync(device::kFullWarp, entry.rank, projection));
        if (lane == 0) {
          shared.tile(p, tile).v[half] = projection * p.v_stride;
          shared.tile(p, tile).blocks[half] = of.projection < 0 ? 0 : of_rank;
        }
        if (of.projection < 0 || !has_room) continue;
        const unsigned char* from = piece(b, of_rank, of.output);
        const uint32_t to = device::shared_address(memory) + staged_pieces(tile, half, blocks);
#pragma unroll 1
        for (int v = lane; v < of_rank * kVectors; v += device::kWarpSize) {
          device::copy_async_16(to + v * 16, from + v / kVectors * lora::kBlockBytes + v % kVectors * 16, true);
        }
      }
      const LoraOutput of = lora_output(p, o, tiles[tile], lane % kTileRows);
      const int projection = max(of.projection, 0);
      const float scale = __shfl_sync(device::kFullWarp, entry.scale, projection);
      const auto factors = reinterpret_cast<const float*>(from_lane(entry.dora_factor, projection));
      const bool changes = __shfl_sync(device::kFullWarp, entry.rank, projection) > 0 && of.projection >= 0;
      TokenDelta delta = {-0.0F, 0, 1, 0};  // adds nothing, not even to a zero's sign
      if (changes) delta.scale = scale;
      if (changes && factors != nullptr) delta.factor = factors[of.output];
      if (lane < kTileRows) shared.deltas(p, tile)[lane] = delta;
    }
    device::commit_async_copies();
  }

  static constexpr int kStoringLanes = device::kWarpSize / 4;

  // B v of what becomes of every warps-th tile. Where the blocks of a cluster share the tiles, whoever needs it waits for
  // `done`, on which each lane that stores arrives for itself: racecheck does not see what one arrives for others. v is
  // there with v_there, B is that which this warp has asked for.
  __device__ __forceinline__ void make_sums(int index, int warps, const OwnTiles& tiles, uint32_t v_there,
                                            uint32_t done) const {
    const int lane = threadIdx.x % device::kWarpSize;
    device::wait_async_copies<0>();
    __syncwarp();
#pragma unroll 1
    for (int tile = index; tile < tiles.count; tile += warps) {
      float2 sums = add(tile, tiles, v_there);
      if (lane % 4 == 0) {
        TokenDelta* deltas = shared.deltas(p, tile) + lane / 4;
        deltas[0].sum = sums.x;
        deltas[8].sum = sums.y;
      }
    }
    if (tiles.stride > 1 && lane % 4 == 0) device::barrier_arrive(done);
  }

 private:
  // [tiles][halves][blocks of ranks], from the beginning of shared memory on.
  __device__ __forceinline__ int staged_pieces(int tile, int half, int blocks) const {
    return p.pieces_offset + (tile * 2 + half) * blocks * kPieceBytes;
  }
  // Of eight outputs and the first block of ranks, of an adapter of `blocks` of them.
  __device__ __forceinline__ static const unsigned char* piece(const void* b, int blocks, int output) {
    return static_cast<const unsigned char*>(b) +
           static_cast<int64_t>(output / lora::kOutputTile) * blocks * lora::kBlockBytes +
           output % lora::kOutputTile * (kPieceBytes / 8);
  }

  // Of rows g and g + 8, in the lanes whose t is 0. What is known before v is looked up before.
  __device__ __forceinline__ float2 add(int tile, const OwnTiles& tiles, uint32_t v_there) const {
    constexpr int kTogether = 2;
    const int lane = threadIdx.x % device::kWarpSize;
    const int g = lane / 4;
    const TokenTile of = shared.tile(p, tile);
    const bool together = of.v[0] == of.v[1] && of.blocks[0] == of.blocks[1];
    const int in_piece = (g % 2 * 4 + lane % 4) * 16 + g / 2 * 4;
    const bool is_staged = shared.rank <= p.staged_rank;
    const int step = is_staged ? kPieceBytes : lora::kBlockBytes;
    const unsigned char* b[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (is_staged) {
        b[half] = memory + staged_pieces(tile, half, shared.rank / lora::kRankTile) + in_piece;
      } else {
        const LoraOutput output = lora_output(p, o, tiles[tile], 8 * half);
        b[half] = piece(shared.pairs[max(output.projection, 0)].b, of.blocks[half], output.output) + in_piece;
      }
    }
    // Of all columns alike: only the first, token 0, counts.
    const RankPair* v = shared.v() + lane % 4;
    float sums[2][4] = {};
    const int most = max(of.blocks[0], of.blocks[1]);
#pragma unroll 1
    for (int first = 0; first < most; first += kTogether) {
      uint32_t words[kTogether][2];
#pragma unroll
      for (int i = 0; i < kTogether; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          words[i][half] =
              first + i < of.blocks[half] ? *reinterpret_cast<const uint32_t*>(b[half] + (first + i) * step) : 0;
        }
      }
      if (first == 0) device::barrier_wait(v_there, 0);
#pragma unroll
      for (int i = 0; i < kTogether; i++) {
        const float2 low = device::unpack<T>(words[i][0]);
        const float2 high = device::unpack<T>(words[i][1]);
        const auto step_of = [&](float(&to)[4], int half, const float2& of_low, const float2& of_high) {
          if (first + i >= of.blocks[half]) return;
          const RankPair x = v[of.v[half] + (first + i) * (lora::kRankTile / 2)];
          const uint32_t a[4] = {__float_as_uint(of_low.x), __float_as_uint(of_high.x), __float_as_uint(of_low.y),
                                 __float_as_uint(of_high.y)};
          lora::mma_tf32(to, a, x.rest[0], x.rest[1]);
          lora::mma_tf32(to, a, x.main[0], x.main[1]);
        };
        if (together) {
          step_of(sums[0], 0, low, high);
        } else {
          step_of(sums[0], 0, low, make_float2(0, 0));
          step_of(sums[1], 1, make_float2(0, 0), high);
        }
      }
    }
    return make_float2(sums[0][0], together ? sums[0][2] : sums[1][2]);
  }
};

}  // namespace lorikeet::kernels::int4
