// v = A x. Included by lora_cuda.cu.
//
// Tokens are the rows of the tensor cores' product, ranks its columns. A warp sums a slice of the inputs, the warps of
// a block a part; the slices are added in shared memory in their order. With few rows (`shrink_parts`) a block makes
// one part of a unit and the parts are added by expand; with many (`shrink`) it makes all parts and adds them itself,
// in the same order.
//
// x, and with many rows A, comes through shared memory: a lane copies there what it will itself read, so that all of it
// can be on its way without registers and without barriers.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/done_counter.cuh"
#include "kernels/lora/lora_cuda.h"
#include "kernels/lora/lora_layout.h"

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

// The rows g and g + 8 of a unit, and their way into shared memory.
template <class T>
struct UnitRows {
  const T* x[2];  // this lane's first inputs; null: no such row

  __device__ __forceinline__ UnitRows(const ShrinkParams& p, const LoraTile& unit, int lane) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = lane / 4 + 8 * h;
      x[h] = row < unit.count
                 ? static_cast<const T*>(p.x) + p.order[unit.first + row] * p.x_stride + lane % 4 * kLaneInputs
                 : nullptr;
    }
  }
  // Inputs of block `block` to to[0] and, of row g + 8, to[kWarpSize]. Missing rows and inputs become 0.
  __device__ __forceinline__ void ask(const ShrinkParams& p, int block, bool both, uint4* to, int lane) const {
    const bool exist = block * kInputBlock + lane % 4 * kLaneInputs < p.inputs;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      if (h > 0 && !both) break;
      const bool valid = exist && x[h] != nullptr;
      device::copy_async_16(device::shared_address(to + h * device::kWarpSize),
                            valid ? static_cast<const void*>(x[h] + block * kInputBlock) : p.x, valid);
    }
  }

  static constexpr int kLaneInputs = 8;
};

// sums += x times one block of A.
template <class T>
__device__ __forceinline__ void add_input_block(float (&sums)[4], const uint4& low, const uint4& high, const uint4& a) {
  device::mma_m16n8k16<T>(sums, low.x, high.x, low.y, high.y, a.x, a.y);
  device::mma_m16n8k16<T>(sums, low.z, high.z, low.w, high.w, a.z, a.w);
}

__device__ __forceinline__ void wait_for_x(const ShrinkParams& p) {
  if (p.x_done != nullptr) {
    device::wait_until_done(p.x_done, p.x_blocks);
  } else {
    device::wait_for_previous_kernel();
  }
}

inline constexpr int kPartsBlocks = 3;  // of a multiprocessor
inline constexpr int kPartsSharedBytes = kShrinkWarps * kSliceBlocks * 2 * device::kWarpSize * 16;

// A x of up to kLoraDecodeRows rows, in parts of the inputs. Units have 8 ranks.
//   grid     units * projections * parts, up to three CTAs a multiprocessor; 256 threads, 72 registers
//   shared   kPartsSharedBytes and 4 kB: a ring per warp, sums of the warps
//   device   8.0
//   waits    for x's writer by its counter, two kernels in front (done_counter.cuh); A is requested before
template <class T>
__global__ void __launch_bounds__(kShrinkThreads, kPartsBlocks) shrink_parts(const __grid_constant__ ShrinkParams p) {
  constexpr int kRows = LoraRowPlan::kTileRows;
  static_assert(kRows * kRankTile <= kShrinkThreads);
  extern __shared__ uint4 shared[];
  __shared__ float slices[kShrinkWarps][kRows][kRankTile];

  device::allow_next_kernel();
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  uint4* of_lane = shared + warp * kSliceBlocks * 2 * device::kWarpSize + lane;
  const int blocks = input_blocks(p.inputs);
  const int per_unit = p.projections * p.parts;
  const int items = p.counts->units * per_unit;

  struct Work {
    int item;  // behind the last: none
    LoraTile unit;
    int projection, part, rank;
  };
  uint4 a[kSliceBlocks];
  const auto steps_of = [&](int part) { return min(kSliceBlocks, blocks - part * kPartBlocks - warp * kSliceBlocks); };
  // The next piece of work from `item` on, all of its A on its way: the adapter is read-only.
  const auto take = [&](int item) {
    Work work{};
    for (; item < items; item += gridDim.x) {
      work.unit = p.units[item / per_unit];
      work.projection = item % per_unit % p.projections;
      work.part = item % per_unit / p.projections;
      const DeviceLora entry = p.entries[static_cast<int64_t>(work.unit.slot) * p.slot_stride + work.projection];
      work.rank = entry.rank;
      if (work.unit.first_rank >= entry.rank) continue;
      const int first_block = work.part * kPartBlocks + warp * kSliceBlocks;
      const uint4* from =
          static_cast<const uint4*>(entry.a) +
          (static_cast<int64_t>(work.unit.first_rank / kRankTile) * blocks + first_block) * device::kWarpSize + lane;
#pragma unroll
      for (int step = 0; step < kSliceBlocks; step++) {
        if (step < steps_of(work.part)) a[step] = __ldg(from + step * device::kWarpSize);
      }
      break;
    }
    work.item = item;
    return work;
  };

  Work work = take(blockIdx.x);
  const bool none = work.item >= items;
  if (!none) wait_for_x(p);
  while (work.item < items) {
    const bool both = work.unit.count > 8;
    const UnitRows<T> rows(p, work.unit, lane);
    const int steps = steps_of(work.part);
    const int first_block = work.part * kPartBlocks + warp * kSliceBlocks;
#pragma unroll
    for (int step = 0; step < kSliceBlocks; step++) {
      if (step < steps) rows.ask(p, first_block + step, both, of_lane + step * 2 * device::kWarpSize, lane);
    }
    device::commit_async_copies();
    device::wait_async_copies<0>();
    float sums[4] = {};
#pragma unroll
    for (int step = 0; step < kSliceBlocks; step++) {
      if (step >= steps) continue;
      const uint4 low = of_lane[step * 2 * device::kWarpSize];
      const uint4 high = both ? of_lane[(step * 2 + 1) * device::kWarpSize] : make_uint4(0, 0, 0, 0);
      add_input_block<T>(sums, low, high, a[step]);
    }
    const Work next = take(work.item + static_cast<int>(gridDim.x));

    __syncthreads();  // the slices of the work before have been read
    float* to = &slices[warp][lane / 4][lane % 4 * 2];
    *reinterpret_cast<float2*>(to) = make_float2(sums[0], sums[1]);
    *reinterpret_cast<float2*>(to + 8 * kRankTile) = make_float2(sums[2], sums[3]);
    __syncthreads();
    const int row = threadIdx.x / kRankTile;
    const int rank = work.unit.first_rank + threadIdx.x % kRankTile;
    if (row < work.unit.count && rank < work.rank) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kShrinkWarps; w++) sum += slices[w][row][threadIdx.x % kRankTile];
      const int64_t position = static_cast<int64_t>(work.unit.first + row) * p.projections + work.projection;
      p.v[work.part * p.part_stride + position * p.rank_stride + rank] = sum;
    }
    work = next;
  }
  // What follows may rely on all that came before.
  if (none || p.x_done != nullptr) device::wait_for_previous_kernel();
}

inline constexpr int kUnitTiles = 2;     // of ranks, where rows are many
inline constexpr int kShrinkDepth = 5;   // steps in a warp's ring
inline constexpr int kShrinkBlocks = 2;  // of a multiprocessor
inline constexpr int kShrinkSharedBytes = kShrinkWarps * kShrinkDepth * (kUnitTiles + 2) * device::kWarpSize * 16;

// A x of any number of rows. Units have 16 ranks.
//   grid     units * projections, up to two CTAs a multiprocessor; 256 threads, 75 registers
//   shared   kShrinkSharedBytes and 16 kB: a ring per warp, sums of the warps
//   device   8.0
//   waits    as shrink_parts
template <class T>
__global__ void __launch_bounds__(kShrinkThreads, kShrinkBlocks) shrink(const __grid_constant__ ShrinkParams p) {
  constexpr int kRows = LoraRowPlan::kTileRows;
  constexpr int kRanks = kUnitTiles * kRankTile;
  constexpr int kStepVectors = (kUnitTiles + 2) * device::kWarpSize;
  static_assert(kRows * kRanks == kShrinkThreads);
  extern __shared__ uint4 shared[];
  __shared__ float slices[2][kShrinkWarps][kRows][kRanks];  // of parts with even and odd numbers

  device::allow_next_kernel();
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  uint4* ring = shared + warp * kShrinkDepth * kStepVectors + lane;
  const int blocks = input_blocks(p.inputs);
  const int items = p.counts->units * p.projections;
  bool waited = false;

  for (int item = blockIdx.x; item < items; item += gridDim.x) {
    const LoraTile unit = p.units[item / p.projections];
    const int projection = item % p.projections;
    const DeviceLora entry = p.entries[static_cast<int64_t>(unit.slot) * p.slot_stride + projection];
    if (unit.first_rank >= entry.rank) continue;
    const int first_tile = unit.first_rank / kRankTile;
    const int tiles = min(kUnitTiles, rank_tiles(entry.rank) - first_tile);
    const uint4* a =
        static_cast<const uint4*>(entry.a) + static_cast<int64_t>(first_tile) * blocks * device::kWarpSize + lane;
    if (!waited) wait_for_x(p);
    waited = true;
    const UnitRows<T> rows(p, unit, lane);
    // Steps of all warps keep in time: 8 of a part, of which warps may lack the last.
    const int steps = p.parts * kSliceBlocks;
    const auto block_of = [&](int step) {
      return step / kSliceBlocks * kPartBlocks + warp * kSliceBlocks + step % kSliceBlocks;
    };
    const auto slot = [&](int step) { return ring + step % kShrinkDepth * kStepVectors; };
    const auto ask = [&](int step) {
      const int block = block_of(step);
      if (step < steps && block < blocks) {
        uint4* to = slot(step);
        rows.ask(p, block, true, to, lane);
#pragma unroll
        for (int j = 0; j < kUnitTiles; j++) {
          if (j >= tiles) break;
          device::copy_async_16(device::shared_address(to + (2 + j) * device::kWarpSize),
                                a + (static_cast<int64_t>(j) * blocks + block) * device::kWarpSize, true);
        }
      }
      device::commit_async_copies();
    };
    for (int step = 0; step < kShrinkDepth - 1; step++) ask(step);
    float total = 0;
    float sums[kUnitTiles][4] = {};
    const int row = threadIdx.x / kRanks;
    const int rank = threadIdx.x % kRanks;
    for (int step = 0; step < steps; step++) {
      ask(step + kShrinkDepth - 1);
      device::wait_async_copies<kShrinkDepth - 1>();
      if (block_of(step) < blocks) {
        const uint4* from = slot(step);
        const uint4 low = from[0];
        const uint4 high = from[device::kWarpSize];
#pragma unroll
        for (int j = 0; j < kUnitTiles; j++) {
          if (j >= tiles) break;
          add_input_block<T>(sums[j], low, high, from[(2 + j) * device::kWarpSize]);
        }
      }
      if (step % kSliceBlocks != kSliceBlocks - 1) continue;
      auto& of_part = slices[step / kSliceBlocks % 2];
#pragma unroll
      for (int j = 0; j < kUnitTiles; j++) {
        float* to = &of_part[warp][lane / 4][j * kRankTile + lane % 4 * 2];
        *reinterpret_cast<float2*>(to) = make_float2(sums[j][0], sums[j][1]);
        *reinterpret_cast<float2*>(to + 8 * kRanks) = make_float2(sums[j][2], sums[j][3]);
#pragma unroll
        for (int i = 0; i < 4; i++) sums[j][i] = 0;
      }
      __syncthreads();
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kShrinkWarps; w++) sum += of_part[w][row][rank];
      total += sum;
    }
    if (row < unit.count && unit.first_rank + rank < entry.rank) {
      const int64_t position = static_cast<int64_t>(unit.first + row) * p.projections + projection;
      p.v[position * p.rank_stride + unit.first_rank + rank] = total;
    }
    __syncthreads();  // an odd number of parts: the next item begins with the slices that were read last
  }
  // What follows may rely on all that came before.
  if (!waited || p.x_done != nullptr) device::wait_for_previous_kernel();
}

}  // namespace lorikeet::kernels::lora
