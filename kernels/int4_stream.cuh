// The kernel of the int4 product in which x streams beside the weights, for up to kInt4DecodeRows tokens in one pass
// over the weights. Included by the .cu files that instantiate it.
//
// Weights are operand A of the tensor cores (16 outputs), tokens their columns. A block works on a round of up to
// kRoundTiles tiles at a time and walks over k in steps of a unit; a step's weights and x are a stage of a ring that
// the whole block shares. Warps divide the tiles, and above 32 tokens the columns too: a fragment of weights is decoded
// once for all columns of a warp, a fragment of x serves all its tiles.
//
// Where there are few tiles, the blocks of a cluster take one part of k each, and the block that owns a tile adds the
// parts in the order of k; else a block walks over all of k and adds the parts as it comes to their ends.
#pragma once

#include "kernels/async_copy.cuh"
#include "kernels/device_math.cuh"
#include "kernels/int4_decode.h"
#include "kernels/int4_fragment.cuh"
#include "kernels/int4_layout.h"
#include "kernels/int4_output.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kStreamWarps = 8;
inline constexpr int kStreamThreads = kStreamWarps * device::kWarpSize;
inline constexpr int kRoundTiles = 16;
inline constexpr int kMostStages = 8;
inline constexpr int kStreamRowBytes = 2 * kUnitInputs + 16;  // of x in a stage; padded so that rows lie in other banks
inline constexpr int kFragmentBytes = 512;                    // 16 outputs x 8 tokens in float

// How a block's warps divide a round: each has up to kRowTiles tiles and kColTiles tiles of 8 columns.
template <int kRowTilesOf, int kColTilesOf, int kColGroupsOf>
struct WarpTiling {
  static constexpr int kRowTiles = kRowTilesOf;
  static constexpr int kColTiles = kColTilesOf;
  static constexpr int kColGroups = kColGroupsOf;
  static constexpr int kRowGroups = kStreamWarps / kColGroups;
  static constexpr int kAllColTiles = kColTiles * kColGroups;
  static_assert(kRowGroups * kRowTiles == kRoundTiles);
};

struct StreamParams {
  const uint8_t* weight;
  const void* x;
  int64_t x_stride;
  OutputParams out;
  int32_t m, k, tiles, units;
  int32_t cluster;  // 1, or kPartsOfK: blocks that divide k
  int32_t stages, round_tiles;
  int32_t stage_bytes, stage_x_offset, sums_offset;  // of shared memory
};

template <class Format>
__device__ __forceinline__ void request_weights(const StreamParams& p, uint32_t stage, int first_tile, int tiles,
                                                int unit) {
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
#pragma unroll
  for (int i = 0; i < kRoundTiles / kStreamWarps; i++) {
    const int tile = warp + i * kStreamWarps;
    if (tile >= tiles) break;
    const uint8_t* from =
        p.weight + (static_cast<int64_t>(first_tile + tile) * p.units + unit) * Format::kBytes + lane * 16;
    const uint32_t to = stage + tile * Format::kBytes + lane * 16;
    device::copy_async_16(to, from, true);
    device::copy_async_16(to + 512, from + 512, true);
    if (lane * 16 < Format::kBytes - 1024) device::copy_async_16(to + 1024, from + 1024, true);
  }
}

// Columns without a token take the last token's x; their results are not used.
template <int kColumns>
__device__ __forceinline__ void request_x(const StreamParams& p, uint32_t stage_x, int unit) {
  constexpr int kChunks = kUnitInputs / 8;
  constexpr int kTokensAtOnce = kStreamThreads / kChunks;
  const int chunk = threadIdx.x % kChunks;
  const int k = unit * kUnitInputs + chunk * 8;
  const auto* x = static_cast<const uint16_t*>(p.x);
#pragma unroll
  for (int first = 0; first < kColumns; first += kTokensAtOnce) {
    const int token = first + threadIdx.x / kChunks;
    if (kColumns % kTokensAtOnce != 0 && token >= kColumns) break;
    const bool valid = k < p.k;
    device::copy_async_16(stage_x + token * kStreamRowBytes + chunk * 16,
                          x + min(token, p.m - 1) * p.x_stride + (valid ? k : 0), valid);
  }
}

__device__ __forceinline__ void wait_for_stage(int stages) {
  switch (stages) {
    case 2:
      return device::wait_async_copies<0>();
    case 3:
      return device::wait_async_copies<1>();
    case 4:
      return device::wait_async_copies<2>();
    case 5:
      return device::wait_async_copies<3>();
    case 6:
      return device::wait_async_copies<4>();
    case 7:
      return device::wait_async_copies<5>();
    default:
      return device::wait_async_copies<6>();
  }
}

// y += one unit of each of the warp's kTiles tiles times x. `weights`: the first tile's unit; `x_lane`: this lane's row
// of the matrices of x.
template <class T, class Format, class Tiling, int kTiles>
__device__ __forceinline__ void add_step(const unsigned char* weights, uint32_t x_lane,
                                         float (&y)[Tiling::kRowTiles][Tiling::kColTiles][4], int lane) {
  constexpr int kCols = Tiling::kColTiles;
  constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  const int g = lane / 4;
  const uint32_t address = device::shared_address(weights) + lane * 16;
  float sum[kTiles][kCols][4];
#pragma unroll
  for (int j = 0; j < kUnitInputs / kSubBlock; j += 2) {
    uint32_t b[2][kCols][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
      for (int c = 0; c < kCols; c++) {
        device::load_matrices(b[i][c], x_lane + c * (8 * kStreamRowBytes) + (j + i) * (2 * kSubBlock));
      }
    }
#pragma unroll
    for (int r = 0; r < kTiles; r++) {
      const unsigned char* unit = weights + r * Format::kBytes;
      const uint4 words = load_shared_16(address + r * Format::kBytes + j / 2 * 512);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int scale = kScales == 1 ? 0 : j + i;
        uint32_t a[2][4];
        decode_sub_block<T>(i == 0 ? words.x : words.z, i == 0 ? words.y : words.w,
                            load_zeros<T, Format>(unit, scale, g), a);
#pragma unroll
        for (int c = 0; c < kCols; c++) {
          if (kScales > 1 || j + i == 0) {
            first_step<T>(sum[r][c], a[0], b[i][c][0], b[i][c][1]);
          } else {
            next_step<T>(sum[r][c], a[0], b[i][c][0], b[i][c][1]);
          }
        }
#pragma unroll
        for (int c = 0; c < kCols; c++) next_step<T>(sum[r][c], a[1], b[i][c][2], b[i][c][3]);
        if constexpr (kScales > 1) {
          const float2 s = load_scales(unit, scale, g);
#pragma unroll
          for (int c = 0; c < kCols; c++) add_scaled(y[r][c], s, sum[r][c]);
        }
      }
      if (kScales == 1 && j + 2 == kUnitInputs / kSubBlock) {
        const float2 s = load_scales(unit, 0, g);
#pragma unroll
        for (int c = 0; c < kCols; c++) add_scaled(y[r][c], s, sum[r][c]);
      }
    }
  }
}

// The same for `tiles` tiles: code of its own for each number, in which nothing branches.
template <class T, class Format, class Tiling, int kTiles = Tiling::kRowTiles>
__device__ __forceinline__ void add_step_of(int tiles, const unsigned char* weights, uint32_t x_lane,
                                            float (&y)[Tiling::kRowTiles][Tiling::kColTiles][4], int lane) {
  if (tiles == kTiles) return add_step<T, Format, Tiling, kTiles>(weights, x_lane, y, lane);
  if constexpr (kTiles > 1) add_step_of<T, Format, Tiling, kTiles - 1>(tiles, weights, x_lane, y, lane);
}

// Stores a fragment of finished sums: tokens first_token + 2t, + 1.
template <class T>
__device__ __forceinline__ void store_fragment(const StreamParams& p, int tile, int first_token, const float (&sum)[4],
                                               int lane) {
  const int token = first_token + lane % 4 * 2;
  if (token < p.m) store_outputs<T>(p.out, tile, lane / 4, token, sum[0], sum[2]);
  if (token + 1 < p.m) store_outputs<T>(p.out, tile, lane / 4, token + 1, sum[1], sum[3]);
}

template <class T, class Format, class Tiling>
__global__ void __launch_bounds__(kStreamThreads, 1) stream(const __grid_constant__ StreamParams p) {
  constexpr int kRows = Tiling::kRowTiles;
  constexpr int kCols = Tiling::kColTiles;
  constexpr int kColumns = 8 * Tiling::kAllColTiles;
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t base = device::shared_address(shared);
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int rank = static_cast<int>(blockIdx.x) % p.cluster;
  const int group = static_cast<int>(blockIdx.x) / p.cluster;
  const int groups = static_cast<int>(gridDim.x) / p.cluster;
  const int first_tile = static_cast<int64_t>(p.tiles) * group / groups;
  const int tiles = static_cast<int64_t>(p.tiles) * (group + 1) / groups - first_tile;
  const int first_unit = p.cluster == 1 ? 0 : part_begin(p.units, rank);
  const int end_unit = p.cluster == 1 ? p.units : part_begin(p.units, rank + 1);

  // The step to be requested next.
  int next_tile = 0;  // of the round
  int next_unit = first_unit;
  int next_stage = 0;
  auto more = [&] { return next_tile < tiles && first_unit < end_unit; };
  auto request_step_weights = [&] {
    request_weights<Format>(p, base + next_stage * p.stage_bytes, first_tile + next_tile,
                            min(p.round_tiles, tiles - next_tile), next_unit);
  };
  auto advance = [&] {
    if (++next_stage == p.stages) next_stage = 0;
    if (++next_unit == end_unit) {
      next_unit = first_unit;
      next_tile += p.round_tiles;
    }
  };
  // Weights are nobody's output: they may be read before the kernel in front has ended.
  for (int i = 0; i < p.stages - 1 && more(); i++) {
    request_step_weights();
    advance();
  }
  device::allow_next_kernel();
#if __CUDA_ARCH__ >= 900
  if (p.cluster > 1) device::cluster_arrive();  // waited for before the first store into a neighbour: it has started
#endif
  device::wait_for_previous_kernel();
  for (int i = 0, unit = first_unit; i < p.stages - 1; i++) {
    if (first_unit < end_unit) request_x<kColumns>(p, base + i * p.stage_bytes + p.stage_x_offset, unit);
    device::commit_async_copies();
    if (++unit == end_unit) unit = first_unit;
  }
#if __CUDA_ARCH__ >= 900
  if (p.cluster > 1) device::cluster_wait();
#endif

  const int row_group = warp / Tiling::kColGroups;
  const int col_group = warp % Tiling::kColGroups;
  // Warps that share a quarter of the multiprocessor take neighbouring spans of tiles, which differ in length.
  const int span = row_group % (Tiling::kRowGroups / 2) * 2 + row_group / (Tiling::kRowGroups / 2);
  const int matrix_row = lane % 8 * kStreamRowBytes + lane / 8 * 16;
  const int x_lane = p.stage_x_offset + col_group * (kCols * 8 * kStreamRowBytes) + matrix_row;
  int stage = 0;
  for (int round = 0; round < tiles; round += p.round_tiles) {
    const int round_tiles = min(p.round_tiles, tiles - round);
    const int my_first = round_tiles * span / Tiling::kRowGroups;
    const int my_tiles = round_tiles * (span + 1) / Tiling::kRowGroups - my_first;
    float y[kRows][kCols][4] = {};
    // Lane-private: the sum of the parts so far.
    float4* sums = reinterpret_cast<float4*>(shared + p.sums_offset) + warp * (kRows * kCols * 32) + lane;
    bool begun = false;
    int part = 0;
    for (int unit = first_unit; unit < end_unit; unit++) {
      wait_for_stage(p.stages);
      __syncthreads();
      if (more()) {
        request_step_weights();
        request_x<kColumns>(p, base + next_stage * p.stage_bytes + p.stage_x_offset, next_unit);
        advance();
      }
      device::commit_async_copies();
      add_step_of<T, Format, Tiling>(my_tiles, shared + stage * p.stage_bytes + my_first * Format::kBytes,
                                     base + stage * p.stage_bytes + x_lane, y, lane);
      if (++stage == p.stages) stage = 0;
      if (p.cluster > 1) continue;
      while (part_begin(p.units, part + 1) <= unit) part++;
      if (unit + 1 < part_begin(p.units, part + 1)) continue;
      const bool last = unit + 1 == end_unit;
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        if (r >= my_tiles) break;
#pragma unroll
        for (int c = 0; c < kCols; c++) {
          float(&v)[4] = y[r][c];
          float4& kept = sums[(r * kCols + c) * 32];
          if (begun) {
            const float4 before = kept;
            v[0] = before.x + v[0];
            v[1] = before.y + v[1];
            v[2] = before.z + v[2];
            v[3] = before.w + v[3];
          }
          if (last) {
            store_fragment<T>(p, first_tile + round + my_first + r, (col_group * kCols + c) * 8, v, lane);
          } else {
            kept = make_float4(v[0], v[1], v[2], v[3]);
          }
          v[0] = v[1] = v[2] = v[3] = 0;
        }
      }
      begun = true;
    }
#if __CUDA_ARCH__ >= 900
    if (p.cluster == 1) continue;
    // Tile i of a round belongs to block i % cluster: [tile / cluster][part][column tile] fragments.
    if (round > 0) {  // the round before has been read
      __syncwarp();
      device::cluster_arrive();
      device::cluster_wait();
    }
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      if (r >= my_tiles) break;
      const int tile = my_first + r;
      const uint32_t mine =
          base + p.sums_offset + lane * 16 +
          ((tile / kPartsOfK * kPartsOfK + rank) * Tiling::kAllColTiles + col_group * kCols) * kFragmentBytes;
      const uint32_t owner = device::cluster_address(mine, tile % kPartsOfK);
#pragma unroll
      for (int c = 0; c < kCols; c++) {
        const float(&v)[4] = y[r][c];
        device::cluster_store_16(owner + c * kFragmentBytes, make_float4(v[0], v[1], v[2], v[3]));
      }
    }
    __syncwarp();
    device::cluster_arrive();
    device::cluster_wait();
    const int owned = (round_tiles - rank + kPartsOfK - 1) / kPartsOfK;
    for (int i = warp; i < owned * Tiling::kAllColTiles; i += kStreamWarps) {
      const int slot = i / Tiling::kAllColTiles;
      const int col_tile = i % Tiling::kAllColTiles;
      const float4* parts = reinterpret_cast<const float4*>(shared + p.sums_offset) +
                            (slot * kPartsOfK * Tiling::kAllColTiles + col_tile) * 32 + lane;
      const float4 first = parts[0];
      float total[4] = {first.x, first.y, first.z, first.w};
#pragma unroll
      for (int part_of = 1; part_of < kPartsOfK; part_of++) {
        const float4 v = parts[part_of * Tiling::kAllColTiles * 32];
        total[0] += v.x;
        total[1] += v.y;
        total[2] += v.z;
        total[3] += v.w;
      }
      store_fragment<T>(p, first_tile + round + slot * kPartsOfK + rank, col_tile * 8, total, lane);
    }
#endif
  }
}

}  // namespace lorikeet::kernels::int4
