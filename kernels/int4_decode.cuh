// The kernel of the int4 product for so few tokens that a block keeps all of x in shared memory. Included by the .cu
// files that instantiate it.
//
// Weights are operand A of the tensor cores (16 outputs), tokens the 8 columns. A block owns whole tiles. Each of its
// warps takes parts of k of a tile in turn and streams them from memory through its registers, as the layout lets every
// lane read what it needs in 16-byte pieces; there is no synchronisation while it does. At the end the parts of every
// output are added in the order of k.
#pragma once

#include "kernels/async_copy.cuh"
#include "kernels/device_math.cuh"
#include "kernels/int4_decode.h"
#include "kernels/int4_fragment.cuh"
#include "kernels/int4_layout.h"
#include "kernels/int4_output.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kDecodeColumns = 8;
inline constexpr int kDecodeRowPadding = 64;  // bytes after a token's x: neighbouring tokens in other banks
inline constexpr int kDecodeUnitXBytes = 2 * kUnitInputs;

inline constexpr int kDecodeWarps = 16;
inline constexpr int kDecodeThreads = kDecodeWarps * device::kWarpSize;

struct DecodeParams {
  const uint8_t* weight;
  const int32_t* permutation;  // or null
  const void* x;
  int64_t x_stride;
  OutputParams out;
  int32_t m, k, tiles, units;
  int32_t x_row_bytes;   // in shared memory
  int32_t parts_offset;  // of shared memory, bytes
};

// Lane q of four neighbours holds inputs 8 q .. 8 q + 7 of a sub-block, as pairs. Afterwards lane t holds pair t of
// every neighbour: what the tensor core takes as operand B from it.
__device__ __forceinline__ uint4 transpose_pairs(uint4 v) {
  const bool high = (threadIdx.x & 2) != 0;
  const bool odd = (threadIdx.x & 1) != 0;
  const uint32_t kept0 = high ? v.z : v.x;
  const uint32_t kept1 = high ? v.w : v.y;
  const uint32_t got0 = __shfl_xor_sync(device::kFullWarp, high ? v.x : v.z, 2);
  const uint32_t got1 = __shfl_xor_sync(device::kFullWarp, high ? v.y : v.w, 2);
  // Pairs 2 * high and 2 * high + 1, of neighbours `odd` (low) and `odd + 2` (upper).
  const uint32_t low0 = high ? got0 : kept0;
  const uint32_t low1 = high ? got1 : kept1;
  const uint32_t upper0 = high ? kept0 : got0;
  const uint32_t upper1 = high ? kept1 : got1;
  const uint32_t mine_low = odd ? low1 : low0;
  const uint32_t mine_upper = odd ? upper1 : upper0;
  const uint32_t other_low = __shfl_xor_sync(device::kFullWarp, odd ? low0 : low1, 1);
  const uint32_t other_upper = __shfl_xor_sync(device::kFullWarp, odd ? upper0 : upper1, 1);
  return make_uint4(odd ? other_low : mine_low, odd ? mine_low : other_low, odd ? other_upper : mine_upper,
                    odd ? mine_upper : other_upper);
}

template <class T>
__device__ __forceinline__ uint4 load_x(const DecodeParams& p, int token, int k) {
  const T* row = static_cast<const T*>(p.x) + token * p.x_stride;
  if (p.permutation == nullptr) return __ldcg(reinterpret_cast<const uint4*>(row + k));
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int2 from = __ldg(reinterpret_cast<const int2*>(p.permutation + k) + i);
    const float low = from.x < 0 ? 0.0F : device::to_float(__ldcg(row + from.x));
    const float high = from.y < 0 ? 0.0F : device::to_float(__ldcg(row + from.y));
    pairs[i] = device::pack<T>(low, high);
  }
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// Brings x into shared memory in the order of the tensor cores, zeros behind its end.
template <class T>
__device__ __forceinline__ void stage_x(const DecodeParams& p, unsigned char* x_shared) {
  constexpr int kBatch = 4;                        // loads in flight per thread
  const int chunks = p.units * (kUnitInputs / 8);  // of 8 inputs; a multiple of 4, so neighbours belong to one token
  const int total = p.m * chunks;
  for (int begin = threadIdx.x; begin - static_cast<int>(threadIdx.x) < total; begin += kBatch * kDecodeThreads) {
    uint4 v[kBatch];
    int token[kBatch];
    int chunk[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      const int i = begin + b * kDecodeThreads;
      token[b] = i / chunks;
      chunk[b] = i - token[b] * chunks;
      v[b] = i < total && chunk[b] * 8 < p.k ? load_x<T>(p, token[b], chunk[b] * 8) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      if (begin - static_cast<int>(threadIdx.x) + b * kDecodeThreads >= total) break;  // alike for the whole block
      const uint4 out = transpose_pairs(v[b]);
      if (begin + b * kDecodeThreads >= total) continue;
      *reinterpret_cast<uint4*>(x_shared + token[b] * p.x_row_bytes + chunk[b] * 16) = out;
    }
  }
}

// Weights that are read once: they bypass the L1 and leave the L2 first.
__device__ __forceinline__ uint4 load_once_16(const void* address, uint64_t policy) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address), "l"(policy));
  return v;
}
__device__ __forceinline__ uint32_t load_once_4(const void* address, uint64_t policy) {
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.u32 %0, [%1], %2;" : "=r"(v) : "l"(address), "l"(policy));
  return v;
}

// A lane's part of a unit, on its way from memory.
template <class Format>
struct UnitInFlight {
  static constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  uint4 words[2];
  uint32_t scales[kScales];
  uint32_t zeros[kScales];

  __device__ __forceinline__ void load(const uint8_t* unit, int lane, uint64_t policy) {
    words[0] = load_once_16(unit + lane * 16, policy);
    words[1] = load_once_16(unit + 512 + lane * 16, policy);
#pragma unroll
    for (int i = 0; i < kScales; i++) {
      scales[i] = load_once_4(unit + kNibbleBytes + (i * 8 + lane / 4) * 4, policy);
      zeros[i] = load_zero_pair<Format>(unit, i, lane / 4);
    }
  }
};

// y += kUnits units times x. x_lane: the address of this lane's column and pairs for the first unit.
template <class T, class Format, int kUnits>
__device__ __forceinline__ void add_units(const UnitInFlight<Format>* units, uint32_t x_lane, float (&y)[4]) {
  constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  static_assert(kUnits == 1 || kScales == 1);  // scales are applied in the order of k
  float sum[kUnits][4];
#pragma unroll
  for (int j = 0; j < kUnitInputs / kSubBlock; j++) {
    const int scale = kScales == 1 ? 0 : j;
#pragma unroll
    for (int u = 0; u < kUnits; u++) {
      const uint4& words = units[u].words[j / 2];
      uint32_t a[2][4];
      decode_sub_block<T>(j % 2 == 0 ? words.x : words.z, j % 2 == 0 ? words.y : words.w,
                          zeros_of<T, Format>(units[u].zeros[scale]), a);
      const uint4 x = load_shared_16(x_lane + u * kDecodeUnitXBytes + j * 64);
      if (kScales > 1 || j == 0) {
        first_step<T>(sum[u], a[0], x.x, x.y);
      } else {
        next_step<T>(sum[u], a[0], x.x, x.y);
      }
      next_step<T>(sum[u], a[1], x.z, x.w);
      if constexpr (kScales > 1) add_scaled(y, scales_of(units[u].scales[scale]), sum[u]);
    }
  }
  if constexpr (kScales == 1) {
#pragma unroll
    for (int u = 0; u < kUnits; u++) add_scaled(y, scales_of(units[u].scales[0]), sum[u]);
  }
}

// The units that a warp takes, two at a time. Item i of a block is part i % kPartsOfK of its tile i / kPartsOfK; a warp
// takes every kDecodeWarps-th.
struct UnitWalk {
  int32_t item = 0, unit = 0, end = 0;

  __device__ __forceinline__ void start(int first_item, int items, int units) {
    for (item = first_item; item < items; item += kDecodeWarps) {
      unit = part_begin(units, item % kPartsOfK);
      end = part_begin(units, item % kPartsOfK + 1);
      if (unit < end) return;
    }
  }
};

// kPairs pairs of units are in flight per lane.
template <class T, class Format, int kPairs>
__global__ void __launch_bounds__(kDecodeThreads, 1) decode(const __grid_constant__ DecodeParams p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int first_tile = static_cast<int64_t>(p.tiles) * blockIdx.x / gridDim.x;
  const int tiles = static_cast<int64_t>(p.tiles) * (blockIdx.x + 1) / gridDim.x - first_tile;
  const int items = tiles * kPartsOfK;
  const uint8_t* weight = p.weight + static_cast<int64_t>(first_tile) * p.units * Format::kBytes;
  const uint64_t policy = device::evict_first_policy();

  UnitInFlight<Format> flight[kPairs][2];
  UnitWalk next;
  auto request = [&](UnitInFlight<Format>(&pair)[2]) {
    if (next.item >= items) return;
    const uint8_t* from = weight + (static_cast<int64_t>(next.item / kPartsOfK) * p.units + next.unit) * Format::kBytes;
    pair[0].load(from, lane, policy);
    if (next.unit + 1 < next.end) pair[1].load(from + Format::kBytes, lane, policy);
    next.unit += 2;
    if (next.unit >= next.end) next.start(next.item + kDecodeWarps, items, p.units);
  };
  // Weights are nobody's output: they may be read before the kernel in front has ended.
  next.start(warp, items, p.units);
#pragma unroll
  for (int i = 0; i < kPairs; i++) request(flight[i]);
  device::allow_next_kernel();
  device::wait_for_previous_kernel();

  stage_x<T>(p, shared);
  float* parts = reinterpret_cast<float*>(shared + p.parts_offset);  // [items][m][16]
  if (p.units < kPartsOfK) {                                         // some parts are empty
    for (int i = threadIdx.x; i < items * p.m * kTileRows; i += kDecodeThreads) parts[i] = 0;
  }
  __syncthreads();

  const int g = lane / 4;
  const int t = lane % 4;
  // Columns without a token repeat the last token; their results are not used.
  const uint32_t x_lane = device::shared_address(shared) + min(g, p.m - 1) * p.x_row_bytes + t * 16;
  float y[4] = {};
  UnitWalk at;
  at.start(warp, items, p.units);
  while (at.item < items) {
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      if (at.item >= items) break;
      const uint32_t x_unit = x_lane + at.unit * kDecodeUnitXBytes;
      if (Format::kScaleBlock == kUnitInputs && at.unit + 1 < at.end) {
        if constexpr (Format::kScaleBlock == kUnitInputs) add_units<T, Format, 2>(flight[i], x_unit, y);
      } else {
        add_units<T, Format, 1>(flight[i], x_unit, y);
        if (Format::kScaleBlock != kUnitInputs && at.unit + 1 < at.end) {
          add_units<T, Format, 1>(flight[i] + 1, x_unit + kDecodeUnitXBytes, y);
        }
      }
      request(flight[i]);
      at.unit += 2;
      if (at.unit < at.end) continue;
      float* part = parts + at.item * p.m * kTileRows;
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int token = 2 * t + e % 2;
        if (token < p.m) part[token * kTileRows + g + e / 2 * 8] = y[e];
        y[e] = 0;
      }
      at.start(at.item + kDecodeWarps, items, p.units);
    }
  }
  __syncthreads();

  const int outputs = p.m * 8;  // a thread adds those of rows g and g + 8
  for (int e = threadIdx.x; e < tiles * outputs; e += kDecodeThreads) {
    const int tile = e / outputs;
    const int token = e % outputs / 8;
    const int row = e % 8;
    const float* part = parts + (tile * kPartsOfK * p.m + token) * kTileRows + row;
    float sum0 = part[0];
    float sum1 = part[8];
#pragma unroll
    for (int i = 1; i < kPartsOfK; i++) {
      sum0 += part[i * p.m * kTileRows];
      sum1 += part[i * p.m * kTileRows + 8];
    }
    store_outputs<T>(p.out, first_tile + tile, row, token, sum0, sum1);
  }
}

}  // namespace lorikeet::kernels::int4
