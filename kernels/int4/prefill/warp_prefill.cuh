// The kernel of kernels/int4/prefill/int4_warp_prefill.h. Weights are operand A of the tensor cores (16 outputs), scaled
// in registers: (q - z) * scale, rounded to the type of the activations. Tokens are the columns. A block of eight warps
// makes an area at a time in steps that come through a ring of stages by asynchronous copies. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/prefill/pair_scale.cuh"
#include "kernels/int4/prefill/warp_prefill_requests.cuh"

namespace lorikeet::kernels::int4 {

// How the warps divide an area: each has kRowTiles tiles and kColTiles tiles of 8 columns.
template <int kRowTilesOf, int kColTilesOf>
struct AreaTiling {
  static constexpr int kRowTiles = kRowTilesOf;
  static constexpr int kColTiles = kColTilesOf;
  static constexpr int kRowGroups = kAreaTiles / kRowTiles;
  static constexpr int kColGroups = kWarpPrefillWarps / kRowGroups;
  static constexpr int kColumns = 8 * kColTiles * kColGroups;
  using Sums = float[kRowTiles][kColTiles][4];
};

// What a warp takes of a stage: all its weights, and x of a sub-block.
template <class Tiling>
using StepWords = uint4[Tiling::kRowTiles];
template <class Tiling>
using StepX = uint32_t[Tiling::kColTiles][4];

template <class Tiling>
__device__ __forceinline__ void load_words(uint32_t weights, int tile_bytes, int lane, StepWords<Tiling>& words) {
#pragma unroll
  for (int r = 0; r < Tiling::kRowTiles; r++) words[r] = load_shared_16(weights + r * tile_bytes + lane * 16);
}
// `x`: this lane's row of the first matrices, in whose row of eight pieces it takes x_piece ^ 0 or ^ 4.
template <class Tiling>
__device__ __forceinline__ void load_x(uint32_t x, int x_piece, int sub_block, StepX<Tiling>& b) {
#pragma unroll
  for (int c = 0; c < Tiling::kColTiles; c++) {
    device::load_matrices(b[c], x + c * (8 * kStepRowBytes) + (x_piece ^ sub_block * 4) * 16);
  }
}

// sum += a sub-block of the warp's tiles times x. `weights`: the warp's first tile of the stage.
template <class T, class Format, class Tiling, int kSub>
__device__ __forceinline__ void multiply_sub_block(const unsigned char* weights, const StepWords<Tiling>& words,
                                                   const StepX<Tiling>& b, typename Tiling::Sums& sum, int g) {
  constexpr int kTileBytes = step_tile_bytes(Format::kScaleBlock, Format::kAsymmetric);
  constexpr int kScaleBlocks = step_scale_blocks(Format::kScaleBlock);
  constexpr int kZerosAt = kStepNibbleBytes + step_scale_bytes(Format::kScaleBlock);
  const int pair = (kScaleBlocks == 1 ? 0 : kSub) * 8 + g;
#pragma unroll
  for (int r = 0; r < Tiling::kRowTiles; r++) {
    const unsigned char* tile = weights + r * kTileBytes;
    const PairScale<T> scales(reinterpret_cast<const uint32_t*>(tile + kStepNibbleBytes)[pair]);
    uint32_t zeros = 0;
    if constexpr (Format::kAsymmetric) zeros = reinterpret_cast<const uint16_t*>(tile + kZerosAt)[pair];
    uint32_t a[2][4];
    decode_sub_block<T>(kSub == 0 ? words[r].x : words[r].z, kSub == 0 ? words[r].y : words[r].w,
                        zeros_of<T, Format>(zeros), a);
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
      for (int i = 0; i < 4; i++) a[s][i] = scales.apply(a[s][i], i % 2);
#pragma unroll
      for (int c = 0; c < Tiling::kColTiles; c++) next_step<T>(sum[r][c], a[s], b[c][2 * s], b[c][2 * s + 1]);
    }
  }
}

template <class Tiling>
__device__ __forceinline__ void clear(typename Tiling::Sums& sum) {
#pragma unroll
  for (int r = 0; r < Tiling::kRowTiles; r++) {
#pragma unroll
    for (int c = 0; c < Tiling::kColTiles; c++) sum[r][c][0] = sum[r][c][1] = sum[r][c][2] = sum[r][c][3] = 0;
  }
}

// Stores what a warp has of an area, by way of `kept`, a stage's x that nobody needs any more: where each lane keeps
// some fragments for itself at a time, so that they can be taken one by one. Code that runs once had better be short.
template <class T, class Tiling>
__device__ __forceinline__ void store_area(const WarpPrefillParams& p, float4* kept, int first_tile, int first_token,
                                           const typename Tiling::Sums& sum, int lane) {
  constexpr int kFragments = Tiling::kRowTiles * Tiling::kColTiles;
  constexpr int kAtOnce = Tiling::kColumns * kStepRowBytes / (kWarpPrefillThreads * 16);
  static_assert(kFragments % kAtOnce == 0);
#pragma unroll 1
  for (int begin = 0; begin < kFragments; begin += kAtOnce) {
#pragma unroll
    for (int f = 0; f < kFragments; f++) {
      const float(&v)[4] = sum[f / Tiling::kColTiles][f % Tiling::kColTiles];
      if (f / kAtOnce * kAtOnce == begin) {
        kept[f % kAtOnce * kWarpPrefillThreads] = make_float4(v[0], v[1], v[2], v[3]);
      }
    }
#pragma unroll 1
    for (int f = begin; f < begin + kAtOnce; f++) {
      const float4 v = kept[(f - begin) * kWarpPrefillThreads];
      const float values[4] = {v.x, v.y, v.z, v.w};
      const int tile = first_tile + f / Tiling::kColTiles;
      if (tile < p.tiles) store_columns<T>(p.out, p.m, tile, first_token + f % Tiling::kColTiles * 8, values, lane);
    }
  }
}

// Of an area whose steps begin at `area_begin` and whose others are made by other blocks: leaves what this block has of
// it, and makes it whole, in the order of k, if the others have done so before; false if one is still to come.
template <class Tiling>
__device__ __forceinline__ bool join_parts(const WarpPrefillParams& p, int64_t area_begin, int* arrived_before,
                                           typename Tiling::Sums& sum) {
  const int blocks = static_cast<int>(gridDim.x);
  const int first = walker_of(area_begin, p.steps, blocks);
  const int last = walker_of(area_begin + p.area_steps - 1, p.steps, blocks);
  const auto sums_of = [&](int block) {
    return p.sums + place_of_sums(p.steps, block, blocks, area_begin) * (area_sum_bytes(Tiling::kColumns) / 16) +
           threadIdx.x;
  };
  float4* mine = sums_of(static_cast<int>(blockIdx.x));
#pragma unroll
  for (int r = 0; r < Tiling::kRowTiles; r++) {
#pragma unroll
    for (int c = 0; c < Tiling::kColTiles; c++) {
      const float(&v)[4] = sum[r][c];
      mine[(r * Tiling::kColTiles + c) * kWarpPrefillThreads] = make_float4(v[0], v[1], v[2], v[3]);
    }
  }
  __syncthreads();
  // The block that ends an area ends no other that it shares: the counter is this area's.
  if (threadIdx.x == 0) *arrived_before = device::add_and_see(p.arrived + last, 1);
  __syncthreads();
  if (*arrived_before < last - first) return false;
  clear<Tiling>(sum);
#pragma unroll 1
  for (int block = first; block <= last; block++) {
    const float4* from = sums_of(block);
#pragma unroll
    for (int r = 0; r < Tiling::kRowTiles; r++) {
#pragma unroll
      for (int c = 0; c < Tiling::kColTiles; c++) {
        const float4 v = __ldcg(from + (r * Tiling::kColTiles + c) * kWarpPrefillThreads);
        float(&total)[4] = sum[r][c];
        total[0] += v.x;
        total[1] += v.y;
        total[2] += v.z;
        total[3] += v.w;
      }
    }
  }
  if (threadIdx.x == 0) p.arrived[last] = 0;
  return true;
}

// Products of kInt4DecodeRows to kInt4WarpPrefillRows tokens.
//   grid     shape.blocks: one for each area, or up to one a multiprocessor that share them; 256 threads; for areas of
//            80, 96 and 128 columns up to 160, 182 and 216 registers; one CTA a multiprocessor
//   shared   four stages of x and weights: 57 to 84 KiB
//   device   8.0
//   waits    for the kernel in front, with weights already requested; of the blocks of an area the last to arrive joins
//            the sums, nobody waits for another
//   floor    on an H200 0.43 to 0.86 times as fast as cuBLASLt fp16, whose steps are warpgroups' there, and 1.02 to 3.5
//            times as fast as unpacking the weight for it
template <class T, class Format, class Tiling>
__global__ void __launch_bounds__(kWarpPrefillThreads, 1) warp_prefill(const __grid_constant__ WarpPrefillParams p) {
  constexpr int kColumns = Tiling::kColumns;
  constexpr int kWeightsAt = kColumns * kStepRowBytes;
  constexpr int kTileBytes = step_tile_bytes(Format::kScaleBlock, Format::kAsymmetric);
  constexpr int kStage = step_stage_bytes(kColumns, Format::kScaleBlock, Format::kAsymmetric);
  constexpr int kStages = kWarpPrefillStages;
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t base = device::shared_address(shared);
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int my_tile = warp / Tiling::kColGroups * Tiling::kRowTiles;
  const int my_column = warp % Tiling::kColGroups * Tiling::kColTiles * 8;
  const int64_t begin = walk_begin(p.steps, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x));
  const int count =
      static_cast<int>(walk_begin(p.steps, static_cast<int>(blockIdx.x) + 1, static_cast<int>(gridDim.x)) - begin);
  device::allow_next_kernel();

  // weights are read-only: they may be read before the kernel in front has ended.
  StepRequests<Format, kColumns> requests(p, begin, count);
  WalkedStep at = requests.at;
  StepRequests<Format, kColumns> early = requests;
#pragma unroll 1
  for (int i = 0; i < kStages - 1; i++) {
    early.weights(base + i * kStage + kWeightsAt);
    if (early.advance(p)) early.begin_next_area(p);
  }
  device::wait_for_previous_kernel();
#pragma unroll 1
  for (int i = 0; i < kStages - 1; i++) {
    requests.inputs(p, base + i * kStage);
    if (requests.advance(p)) requests.begin_next_area(p);
    device::commit_async_copies();
  }

  typename Tiling::Sums sum = {};
  const int g = lane / 4;
  const int my_x = (my_column + lane % 8) * kStepRowBytes;
  const int my_weights = kWeightsAt + my_tile * kTileBytes;
  const int x_piece = lane / 8 ^ lane % 8;
  StepWords<Tiling> words;
  StepX<Tiling> x[2];
  device::wait_async_copies<kStages - 2>();
  __syncthreads();
  load_words<Tiling>(base + my_weights, kTileBytes, lane, words);
  load_x<Tiling>(base + my_x, x_piece, 0, x[0]);
  int stage = 0;  // where it begins
  int i = 0;
  while (i < count) {
    const int area_first = at.step;  // of this block's steps of the area
    const int area_begin = i;
    const int area_end = min(count, i + p.area_steps - area_first);
    int last_stage = stage;
#pragma unroll 1
    for (; i < area_end; i++) {
      device::wait_async_copies<kStages - 3>();
      __syncthreads();  // the next stage has come for all, and all have left the one before this
      const int next_stage = stage == (kStages - 1) * kStage ? 0 : stage + kStage;
      const uint32_t free_stage = base + (stage == 0 ? (kStages - 1) * kStage : stage - kStage);
      const unsigned char* weights = shared + stage + my_weights;
      load_x<Tiling>(base + stage + my_x, x_piece, 1, x[1]);
      multiply_sub_block<T, Format, Tiling, 0>(weights, words, x[0], sum, g);
      requests.weights(free_stage + kWeightsAt);
      requests.inputs(p, free_stage);
      device::commit_async_copies();
      const bool area_requested = requests.advance(p);
      StepWords<Tiling> next_words;
      load_words<Tiling>(base + next_stage + my_weights, kTileBytes, lane, next_words);
      load_x<Tiling>(base + next_stage + my_x, x_piece, 0, x[0]);
      multiply_sub_block<T, Format, Tiling, 1>(weights, words, x[1], sum, g);
#pragma unroll
      for (int r = 0; r < Tiling::kRowTiles; r++) words[r] = next_words[r];
      last_stage = stage;
      stage = next_stage;
      if (area_requested) requests.begin_next_area(p);
    }
    at.step += area_end - area_begin;
    __syncthreads();  // all have read the last stage
    const bool whole = area_first == 0 && at.step == p.area_steps;
    if (whole || join_parts<Tiling>(p, begin + i - at.step, reinterpret_cast<int*>(shared + kStages * kStage), sum)) {
      store_area<T, Tiling>(p, reinterpret_cast<float4*>(shared + last_stage) + threadIdx.x, at.first_tile + my_tile,
                            at.first_token + my_column, sum, lane);
    }
    clear<Tiling>(sum);
    at.begin_next_area(p, kColumns);
  }
}

using WarpPrefillKernel = void (*)(WarpPrefillParams);

// Each element type is compiled in a file of its own.
template <class T>
WarpPrefillKernel warp_prefill_kernel(int32_t columns, int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
