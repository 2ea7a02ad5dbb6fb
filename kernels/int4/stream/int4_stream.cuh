// The kernel of the int4 product in which x streams beside the weights, for up to kInt4DecodeRows tokens in one pass
// over the weights. Included by the .cu files that instantiate it.
//
// Weights are operand A of the tensor cores (16 outputs), tokens their columns. A block works on a round of up to
// kRoundTiles tiles at a time and walks over k in steps of a unit; a step's weights and x are a stage of a ring that a
// group of warps fills and the others share. These divide the tiles, and above 32 tokens the columns too: a fragment of
// weights is decoded once for all columns of a warp, a fragment of x serves all its tiles.
//
// Where there are few tiles, the blocks of a cluster take one part of k each, and the block that owns a tile adds the
// parts in the order of k; else a block walks over all of k and adds the parts as it comes to their ends.
#pragma once

#include "kernels/int4/stream/parts.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kStreamWarps = 8;   // that compute
inline constexpr int kFillingWarps = 4;  // a warpgroup
inline constexpr int kStreamThreads = (kStreamWarps + kFillingWarps) * device::kWarpSize;
// Registers of a thread when those that fill have given theirs away.
inline constexpr int kStreamRegisters = 232;
inline constexpr int kFillingRegisters = 40;
inline constexpr int kStreamRowBytes = 2 * kUnitInputs + 16;  // of x in a stage; padded so that rows lie in other banks

// How the warps that compute divide a round: each has up to kRowTiles tiles and kColTiles tiles of 8 columns.
template <int kRowTilesOf, int kColTilesOf, int kColGroupsOf>
struct WarpTiling {
  static constexpr int kWarps = kStreamWarps;
  static constexpr int kRowTiles = kRowTilesOf;
  static constexpr int kColTiles = kColTilesOf;
  static constexpr int kColGroups = kColGroupsOf;
  static constexpr int kRowGroups = kStreamWarps / kColGroups;
  static constexpr int kAllColTiles = kColTiles * kColGroups;
  static_assert(kRowGroups * kRowTiles == kRoundTiles);
};

// By the filling warps together.
template <class Format>
__device__ __forceinline__ void request_weights(const StreamParams& p, uint32_t stage, int first_tile, int tiles,
                                                int unit, int warp, int lane) {
  const int64_t step = static_cast<int64_t>(p.units) * Format::kBytes;
  const uint8_t* base = p.weight + first_tile * step + static_cast<int64_t>(unit) * Format::kBytes;
  const uint8_t* from = base + warp * step + lane * 16;
  uint32_t to = stage + warp * Format::kBytes + lane * 16;
#pragma unroll 4
  for (int tile = warp; tile < tiles; tile += kFillingWarps) {
    device::copy_async_16(to, from, true);
    device::copy_async_16(to + 512, from + 512, true);
    from += kFillingWarps * step;
    to += kFillingWarps * Format::kBytes;
  }
  constexpr int kRest = (Format::kBytes - kNibbleBytes) / 16;
  for (int i = warp * device::kWarpSize + lane; i < tiles * kRest; i += kFillingWarps * device::kWarpSize) {
    const int tile = i / kRest;
    const int byte = kNibbleBytes + i % kRest * 16;
    device::copy_async_16(stage + tile * Format::kBytes + byte, base + tile * step + byte, true);
  }
}

// Likewise. Columns without a token take the last token's x; their results are not used.
template <int kColumns>
__device__ __forceinline__ void request_x(const StreamParams& p, uint32_t stage_x, int unit, int warp, int lane) {
  constexpr int kChunks = kUnitInputs / 8;
  constexpr int kTokensAtOnce = kFillingWarps * device::kWarpSize / kChunks;
  const int chunk = lane % kChunks;
  const int first = warp * (device::kWarpSize / kChunks) + lane / kChunks;
  const int k = unit * kUnitInputs + chunk * 8;
  const bool valid = k < p.k;
  const auto* x = static_cast<const uint16_t*>(p.x) + (valid ? k : 0);
#pragma unroll
  for (int i = 0; i < kColumns; i += kTokensAtOnce) {
    const int token = first + i;
    device::copy_async_16(stage_x + token * kStreamRowBytes + chunk * 16, x + min(token, p.m - 1) * p.x_stride, valid);
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

// Fills the ring: step by step of round by round.
template <class Format, int kColumns>
__device__ __forceinline__ void fill_stages(const StreamParams& p, uint32_t base, uint32_t full, uint32_t empty,
                                            int first_tile, int tiles, int first_unit, int end_unit, int warp,
                                            int lane) {
  const int units = end_unit - first_unit;
  const int steps = units * ((tiles + p.round_tiles - 1) / p.round_tiles);
  auto request_step_weights = [&](int stage, int round, int unit) {
    request_weights<Format>(p, base + stage * p.stage_bytes, first_tile + round, min(p.round_tiles, tiles - round),
                            unit, warp, lane);
  };
  // weights are read-only: they may be read before the kernel in front has ended.
  const int early = min(p.stages, steps);
  for (int i = 0, round = 0, unit = first_unit; i < early; i++) {
    request_step_weights(i, round, unit);
    if (++unit == end_unit) {
      unit = first_unit;
      round += p.round_tiles;
    }
  }
  device::wait_for_previous_kernel();
  int stage = 0;
  uint32_t phase = 1;
  for (int i = 0, round = 0, unit = first_unit; i < steps; i++) {
    if (i >= early) {
      device::barrier_wait(empty + stage * 8, phase);
      request_step_weights(stage, round, unit);
    }
    request_x<kColumns>(p, base + stage * p.stage_bytes + p.stage_x_offset, unit, warp, lane);
    device::barrier_arrive_with_copies(full + stage * 8);
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
    if (++unit == end_unit) {
      unit = first_unit;
      round += p.round_tiles;
    }
  }
}

//   grid     shape.blocks, alone or in clusters, at most one CTA a multiprocessor; 384 threads, 168 registers at launch: 232 for those
//            that compute, 40 for those that fill
//   shared   StreamSizes: shape.depth stages of weights and x, sums of a round
//   device   8.0; clusters and the moving of registers from 9.0 on
//   waits    for the kernel in front, with weights already requested
template <class T, class Format, class Tiling>
__global__ void __launch_bounds__(kStreamThreads, 1) stream(const __grid_constant__ StreamParams p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t base = device::shared_address(shared);
  const uint32_t full = base + p.barriers_offset;
  const uint32_t empty = full + kMostStages * 8;
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int rank = static_cast<int>(blockIdx.x) % p.cluster;
  const int group = static_cast<int>(blockIdx.x) / p.cluster;
  const int groups = static_cast<int>(gridDim.x) / p.cluster;
  const int first_tile = static_cast<int64_t>(p.tiles) * group / groups;
  const int tiles = static_cast<int64_t>(p.tiles) * (group + 1) / groups - first_tile;
  const int first_unit = p.cluster == 1 ? 0 : part_begin(p.units, rank);
  const int end_unit = p.cluster == 1 ? p.units : part_begin(p.units, rank + 1);
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.stages; i++) {
      device::barrier_init(full + i * 8, kFillingWarps * device::kWarpSize);
      device::barrier_init(empty + i * 8, kStreamWarps * device::kWarpSize);
    }
  }
  __syncthreads();
  device::allow_next_kernel();
#if __CUDA_ARCH__ >= 900
  if (p.cluster > 1) {  // a neighbour must have started before it is sent sums
    device::cluster_arrive();
    device::cluster_wait();
  }
#endif
  if (warp >= kStreamWarps) {
    device::give_registers<kFillingRegisters>();
    fill_stages<Format, 8 * Tiling::kAllColTiles>(p, base, full, empty, first_tile, tiles, first_unit, end_unit,
                                                  warp - kStreamWarps, lane);
#if __CUDA_ARCH__ >= 900
    __syncwarp();
    if (p.cluster > 1) device::cluster_arrive();
#endif
    return;
  }

  device::take_registers<kStreamRegisters>();
  const int row_group = warp / Tiling::kColGroups;
  const int col_tile = warp % Tiling::kColGroups * Tiling::kColTiles;
  // Warps that share a quarter of the multiprocessor take neighbouring spans of tiles, which differ in length.
  constexpr int kQuarters = Tiling::kRowGroups >= 4 ? 4 / Tiling::kColGroups : Tiling::kRowGroups;
  constexpr int kSpansOfQuarter = Tiling::kRowGroups / kQuarters;
  const int span = row_group % kQuarters * kSpansOfQuarter + row_group / kQuarters;
  const int x_lane =
      p.stage_x_offset + (col_tile * 8 + lane % 8) * kStreamRowBytes + lane / 8 * 16;  // of the matrices of x
  auto* sums = reinterpret_cast<float4*>(shared + p.sums_offset);
  int stage = 0;
  uint32_t phase = 0;
  for (int round = 0; round < tiles; round += p.round_tiles) {
    const int round_tiles = min(p.round_tiles, tiles - round);
    const int my_first = round_tiles * span / Tiling::kRowGroups;
    const int my_tiles = round_tiles * (span + 1) / Tiling::kRowGroups - my_first;
    float4* kept = sums + (my_first * Tiling::kAllColTiles + col_tile) * 32 + lane;
    WarpSums<Tiling> y = {};
    bool first = true;
    int part_end = 0;
    for (int unit = first_unit, part = 0; unit < end_unit; unit++) {
      while (part_end <= unit) part_end = part_begin(p.units, ++part);
      device::barrier_wait(full + stage * 8, phase);
      add_step_of<T, Format, Tiling>(my_tiles, shared + stage * p.stage_bytes + my_first * Format::kBytes,
                                     base + stage * p.stage_bytes + x_lane, y, lane);
      device::barrier_arrive(empty + stage * 8);
      if (++stage == p.stages) {
        stage = 0;
        phase ^= 1;
      }
      if (p.cluster > 1 || unit + 1 < part_end) continue;
      end_part<Tiling>(y, kept, first, my_tiles);
      first = false;
    }
    if (p.cluster == 1) {
      store_kept<T, Tiling>(p, kept, first_tile + round + my_first, my_tiles, col_tile * 8, lane);
      // A round of fewer tiles deals the places of the sums to other warps.
      if (round + p.round_tiles < tiles) asm volatile("bar.sync 1, %0;" ::"n"(kStreamWarps * 32) : "memory");
      continue;
    }
#if __CUDA_ARCH__ >= 900
    send_part<Tiling>(y, base + p.sums_offset, rank, my_first, my_tiles, col_tile, lane);
    __syncwarp();
    device::cluster_arrive();
    device::cluster_wait();
    add_parts<T, Tiling>(p, sums, rank, first_tile, tiles, warp, lane);
#endif
  }
}

}  // namespace lorikeet::kernels::int4
