// v = A x. Included by lora_cuda.cu.
//
// Tokens are the rows of the tensor cores' product, ranks its columns. A warp sums a slice of the inputs, the warps of
// a block a part; the slices are added in shared memory in their order. With few rows a block makes one part of a unit
// and the parts are added by expand; with many it makes all parts and adds them itself, in the same order.
#pragma once

#include "kernels/async_copy.cuh"
#include "kernels/device_math.cuh"
#include "kernels/done_counter.cuh"
#include "kernels/lora_cuda.h"
#include "kernels/lora_layout.h"

namespace lorikeet::kernels::lora {

inline constexpr int kShrinkWarps = 8;
inline constexpr int kShrinkThreads = kShrinkWarps * device::kWarpSize;
inline constexpr int kSliceBlocks = 8;  // of kInputBlock inputs
inline constexpr int kPartBlocks = kSliceBlocks * kShrinkWarps;

constexpr int32_t input_parts(int32_t inputs) {
  return (input_blocks(inputs) + kPartBlocks - 1) / kPartBlocks;
}

// v [parts or 1][rows in the order of LoraRows][projections][rank_stride]
struct ShrinkParams {
  const DeviceLora* entries;  // of the first projection
  int32_t slot_stride;
  const LoraCounts* counts;
  const LoraTile* units;
  const int32_t* order;
  const void* x;
  int64_t x_stride;
  float* v;
  int64_t part_stride;
  int32_t rank_stride;
  int32_t inputs;
  int32_t projections;
  int32_t parts;
  const uint32_t* x_done;  // or null
  uint32_t x_blocks;
};

// kRankTiles: of a unit; kSubtiles: 16 rows each. One rank tile means few rows.
template <class T, int kRankTiles, int kSubtiles>
__global__ void __launch_bounds__(kShrinkThreads, kRankTiles == 1 ? 3 : 2)
    shrink(const __grid_constant__ ShrinkParams p) {
  constexpr bool kFewRows = kRankTiles == 1;
  constexpr int kRows = 16 * kSubtiles;
  constexpr int kRanks = kRankTile * kRankTiles;
  constexpr int kStride = kRanks % 32 == 0 ? kRanks + 8 : kRanks;  // rows g = 0..3 in different banks
  constexpr int kSums = (kRows * kRanks + kShrinkThreads - 1) / kShrinkThreads;
  __shared__ float slices[kShrinkWarps][kRows][kStride];

  device::allow_next_kernel();
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int g = lane / 4;
  const int t = lane % 4;
  const int blocks = input_blocks(p.inputs);
  const int per_unit = p.projections * (kFewRows ? p.parts : 1);
  const int items = p.counts->units * per_unit;
  bool waited = false;
  auto wait_for_x = [&] {
    if (waited) return;
    waited = true;
    if (p.x_done != nullptr) {
      device::wait_until_done(p.x_done, p.x_blocks);
    } else {
      device::wait_for_previous_kernel();
    }
  };

  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const LoraTile unit = p.units[item / per_unit];
    const int projection = item % per_unit % p.projections;
    const DeviceLora entry = p.entries[static_cast<int64_t>(unit.slot) * p.slot_stride + projection];
    if (unit.first_rank >= entry.rank) continue;
    const int first_tile = unit.first_rank / kRankTile;
    const int tiles = min(kRankTiles, rank_tiles(entry.rank) - first_tile);
    const int first_part = kFewRows ? item % per_unit / p.projections : 0;
    const int end_part = kFewRows ? first_part + 1 : p.parts;
    const T* x[2 * kSubtiles];  // of rows g, g + 8, ...
#pragma unroll
    for (int i = 0; i < 2 * kSubtiles; i++) {
      const int row = g + 8 * i;
      x[i] = row < unit.count ? static_cast<const T*>(p.x) + p.order[unit.first + row] * p.x_stride : nullptr;
    }
    auto load_x = [&](int i, int k) {
      return x[i] != nullptr && k < p.inputs ? __ldcg(reinterpret_cast<const uint4*>(x[i] + k))
                                             : make_uint4(0, 0, 0, 0);
    };

    float totals[kSums] = {};
    for (int part = first_part; part < end_part; part++) {
      const int first_block = part * kPartBlocks + warp * kSliceBlocks;
      const int steps = min(kSliceBlocks, blocks - first_block);
      const uint4* a = static_cast<const uint4*>(entry.a) +
                       (static_cast<int64_t>(first_tile) * blocks + first_block) * device::kWarpSize + lane;
      float sums[kSubtiles][kRankTiles][4] = {};
      auto multiply = [&](int step, const uint4(&w)[kRankTiles]) {
        const int k = (first_block + step) * kInputBlock + 8 * t;
#pragma unroll
        for (int s = 0; s < kSubtiles; s++) {
          if (s > 0 && unit.count <= 16 * s) break;
          const uint4 low = load_x(2 * s, k);
          const uint4 high = load_x(2 * s + 1, k);
#pragma unroll
          for (int j = 0; j < kRankTiles; j++) {
            device::mma_m16n8k16<T>(sums[s][j], low.x, high.x, low.y, high.y, w[j].x, w[j].y);
            device::mma_m16n8k16<T>(sums[s][j], low.z, high.z, low.w, high.w, w[j].z, w[j].w);
          }
        }
      };
      if constexpr (kFewRows) {
        // The adapter is nobody's output: all of the slice is on its way before the kernel in front has ended.
        uint4 w[kSliceBlocks][1];
#pragma unroll
        for (int step = 0; step < kSliceBlocks; step++) {
          w[step][0] = step < steps ? __ldg(a + step * device::kWarpSize) : make_uint4(0, 0, 0, 0);
        }
        wait_for_x();
#pragma unroll
        for (int step = 0; step < kSliceBlocks; step++) {
          if (step < steps) multiply(step, w[step]);
        }
      } else {
        wait_for_x();
#pragma unroll 2
        for (int step = 0; step < steps; step++) {
          uint4 w[kRankTiles];
#pragma unroll
          for (int j = 0; j < kRankTiles; j++) {
            const int64_t tile = static_cast<int64_t>(j) * blocks * device::kWarpSize;
            w[j] = j < tiles ? __ldg(a + tile + step * device::kWarpSize) : make_uint4(0, 0, 0, 0);
          }
          multiply(step, w);
        }
      }

      __syncthreads();  // the slices of the part before have been read
#pragma unroll
      for (int s = 0; s < kSubtiles; s++) {
#pragma unroll
        for (int j = 0; j < kRankTiles; j++) {
          float* to = &slices[warp][16 * s + g][j * kRankTile + 2 * t];
          *reinterpret_cast<float2*>(to) = make_float2(sums[s][j][0], sums[s][j][1]);
          *reinterpret_cast<float2*>(to + 8 * kStride) = make_float2(sums[s][j][2], sums[s][j][3]);
        }
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kSums; i++) {
        const int e = threadIdx.x + i * kShrinkThreads;
        if (e >= kRows * kRanks) break;
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kShrinkWarps; w++) sum += slices[w][e / kRanks][e % kRanks];
        totals[i] += sum;
      }
    }

#pragma unroll
    for (int i = 0; i < kSums; i++) {
      const int e = threadIdx.x + i * kShrinkThreads;
      const int row = e / kRanks;
      const int rank = unit.first_rank + e % kRanks;
      if (row >= unit.count || rank >= entry.rank) continue;
      const int64_t position = static_cast<int64_t>(unit.first + row) * p.projections + projection;
      p.v[first_part * p.part_stride + position * p.rank_stride + rank] = totals[i];
    }
  }
  // What follows may rely on all that came before.
  if (!waited || p.x_done != nullptr) device::wait_for_previous_kernel();
}

}  // namespace lorikeet::kernels::lora
