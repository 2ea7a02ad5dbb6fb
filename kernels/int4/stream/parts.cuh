// What the kernels for which x streams have in common: their parameters, and what becomes of the sums of the parts of
// k. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kRoundTiles = 16;
inline constexpr int kMostStages = 6;
inline constexpr int kFragmentBytes = 512;  // 16 outputs x 8 tokens in float

struct StreamParams {
  const uint8_t* weight;
  const void* x;
  int64_t x_stride;
  OutputParams out;
  int32_t m, k, tiles, units;
  int32_t cluster;              // 1, or kPartsOfK: blocks that divide k
  int32_t stages, round_tiles;  // with clusters all of a group's tiles are one round
  int32_t stage_bytes, stage_x_offset, sums_offset, barriers_offset;  // of shared memory
};

// What a warp has of its tiles' sums. A tiling says how many warps compute, how many tiles and columns of 8 tokens each
// has, and how many columns there are in all.
template <class Tiling>
using WarpSums = float[Tiling::kRowTiles][Tiling::kColTiles][4];

// At the end of a part of k: adds it to the parts before it, kept in shared memory by every lane for itself as
// fragments [tile][column tile].
template <class Tiling>
__device__ __forceinline__ void end_part(WarpSums<Tiling>& y, float4* kept, bool first, int tiles) {
#pragma unroll
  for (int r = 0; r < Tiling::kRowTiles; r++) {
    if (r >= tiles) break;
#pragma unroll
    for (int c = 0; c < Tiling::kColTiles; c++) {
      float(&v)[4] = y[r][c];
      float4& sum = kept[(r * Tiling::kAllColTiles + c) * 32];
      const float4 before = sum;
      sum = first ? make_float4(v[0], v[1], v[2], v[3])
                  : make_float4(before.x + v[0], before.y + v[1], before.z + v[2], before.w + v[3]);
      v[0] = v[1] = v[2] = v[3] = 0;
    }
  }
}

// Stores what a warp has kept when the last part has ended. Not unrolled: code that runs once had better be short.
template <class T, class Tiling>
__device__ __forceinline__ void store_kept(const StreamParams& p, const float4* kept, int first_tile, int tiles,
                                           int first_token, int lane) {
#pragma unroll 1
  for (int i = 0; i < tiles * Tiling::kColTiles; i++) {
    const float4 v = kept[(i / Tiling::kColTiles * Tiling::kAllColTiles + i % Tiling::kColTiles) * 32];
    const float sum[4] = {v.x, v.y, v.z, v.w};
    store_columns<T>(p.out, p.m, first_tile + i / Tiling::kColTiles, first_token + i % Tiling::kColTiles * 8, sum,
                     lane);
  }
}

#if __CUDA_ARCH__ >= 900
// Sends a part's sums to the blocks that own the tiles: tile i to block i % cluster, as fragments
// [tile / cluster][part][column tile].
template <class Tiling>
__device__ __forceinline__ void send_part(const WarpSums<Tiling>& y, uint32_t sums, int rank, int first_tile, int tiles,
                                          int col_tile, int lane) {
#pragma unroll
  for (int r = 0; r < Tiling::kRowTiles; r++) {
    if (r >= tiles) break;
    const int tile = first_tile + r;
    const uint32_t mine =
        sums + lane * 16 + ((tile / kPartsOfK * kPartsOfK + rank) * Tiling::kAllColTiles + col_tile) * kFragmentBytes;
    const uint32_t owner = device::cluster_address(mine, tile % kPartsOfK);
#pragma unroll
    for (int c = 0; c < Tiling::kColTiles; c++) {
      const float(&v)[4] = y[r][c];
      device::cluster_store_16(owner + c * kFragmentBytes, make_float4(v[0], v[1], v[2], v[3]));
    }
  }
}

// Adds the parts of the tiles that this block owns in the order of k and stores the outputs.
template <class T, class Tiling>
__device__ __forceinline__ void add_parts(const StreamParams& p, const float4* sums, int rank, int first_tile,
                                          int tiles, int warp, int lane) {
  const int owned = (tiles - rank + kPartsOfK - 1) / kPartsOfK;
#pragma unroll 1
  for (int i = warp; i < owned * Tiling::kAllColTiles; i += Tiling::kWarps) {
    const int slot = i / Tiling::kAllColTiles;
    const int col_tile = i % Tiling::kAllColTiles;
    const float4* parts = sums + (slot * kPartsOfK * Tiling::kAllColTiles + col_tile) * 32 + lane;
    const float4 first = parts[0];
    float total[4] = {first.x, first.y, first.z, first.w};
#pragma unroll
    for (int part = 1; part < kPartsOfK; part++) {
      const float4 v = parts[part * Tiling::kAllColTiles * 32];
      total[0] += v.x;
      total[1] += v.y;
      total[2] += v.z;
      total[3] += v.w;
    }
    store_columns<T>(p.out, p.m, first_tile + slot * kPartsOfK + rank, col_tile * 8, total, lane);
  }
}
#endif

}  // namespace lorikeet::kernels::int4
