// The kernel of the int4 product for so few tokens that a block keeps x in shared memory. Included by the .cu files
// that instantiate it.
//
// Weights are operand A of the tensor cores (16 outputs), tokens the 8 columns. A group of blocks, one or a cluster of
// two, owns whole tiles; in a cluster each block takes half of k, and so keeps half of x. Each warp takes parts of k of
// a tile in turn and streams them through a ring of its own in shared memory; there is no synchronisation while it
// does. The sums of parts go to the block that finishes the tile, which adds them in the order of k.
//
// With 64 registers a thread, blocks of the next kernel find room beside these and fetch their first weights.
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
inline constexpr int kDecodeCluster = 2;  // blocks that divide k, where clusters are used

struct DecodeParams {
  const uint8_t* weight;
  const int32_t* permutation;  // or null
  const void* x;
  int64_t x_stride;
  OutputParams out;
  int32_t m, k, units;
  int32_t cluster_log2;                                // blocks that divide k: 1 or kDecodeCluster
  int32_t tiles, groups_with_more;                     // of a group of blocks; those that have one more
  int32_t stages, chunk;                               // of a warp's ring; units of a stage
  int32_t x_row_bytes;                                 // in shared memory
  int32_t parts_offset, ring_offset, barriers_offset;  // of shared memory, bytes
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

// Brings the x of `chunks` times 8 inputs from first_k into shared memory in the order of the tensor cores, zeros
// behind its end. chunks: a multiple of 4, so that neighbours belong to one token.
template <class T>
__device__ __forceinline__ void stage_x(const DecodeParams& p, unsigned char* x_shared, int first_k, int chunks) {
  constexpr int kBatch = 4;  // loads in flight per thread
  int token = static_cast<int>(threadIdx.x) / chunks;
  int chunk = static_cast<int>(threadIdx.x) - token * chunks;
  device::wait_for_previous_kernel();
  for (int begin = 0; begin < p.m * chunks; begin += kBatch * kDecodeThreads) {
    uint4 v[kBatch];
    int to[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      const int k = first_k + chunk * 8;
      v[b] = token < p.m && k < p.k ? load_x<T>(p, token, k) : make_uint4(0, 0, 0, 0);
      to[b] = token < p.m ? token * p.x_row_bytes + chunk * 16 : -1;
      for (chunk += kDecodeThreads; chunk >= chunks; chunk -= chunks) token++;
    }
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      if (begin + b * kDecodeThreads >= p.m * chunks) break;  // alike for the whole block
      const uint4 out = transpose_pairs(v[b]);
      if (to[b] >= 0) *reinterpret_cast<uint4*>(x_shared + to[b]) = out;
    }
  }
}

// y += kUnits units times x. `unit`: this lane's words of the first; x_lane: the address of this lane's column and
// pairs for it.
template <class T, class Format, int kUnits>
__device__ __forceinline__ void add_units(const unsigned char* unit, uint32_t x_lane, int lane, float (&y)[4]) {
  constexpr int kScales = kUnitInputs / Format::kScaleBlock;
  static_assert(kUnits == 1 || kScales == 1);  // scales are applied in the order of k
  const uint32_t words_at = device::shared_address(unit) + lane * 16;
  const int g = lane / 4;
  float sum[kUnits][4];
#pragma unroll
  for (int j = 0; j < kUnitInputs / kSubBlock; j += 2) {
    uint4 words[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; u++) words[u] = load_shared_16(words_at + u * Format::kBytes + j / 2 * 512);
#pragma unroll
    for (int i = j; i < j + 2; i++) {
      const int scale = kScales == 1 ? 0 : i;
#pragma unroll
      for (int u = 0; u < kUnits; u++) {
        uint32_t a[2][4];
        decode_sub_block<T>(i == j ? words[u].x : words[u].z, i == j ? words[u].y : words[u].w,
                            load_zeros<T, Format>(unit + u * Format::kBytes, scale, g), a);
        const uint4 x = load_shared_16(x_lane + u * kDecodeUnitXBytes + i * 64);
        if (kScales > 1 || i == 0) {
          first_step<T>(sum[u], a[0], x.x, x.y);
        } else {
          next_step<T>(sum[u], a[0], x.x, x.y);
        }
        next_step<T>(sum[u], a[1], x.z, x.w);
        if constexpr (kScales > 1) add_scaled(y, load_scales(unit, scale, g), sum[u]);
      }
    }
  }
  if constexpr (kScales == 1) {
#pragma unroll
    for (int u = 0; u < kUnits; u++) add_scaled(y, load_scales(unit + u * Format::kBytes, 0, g), sum[u]);
  }
}

// What a warp takes of its block's work, in chunks of neighbouring units: every kDecodeWarps-th item. Item i is one of
// 2^parts_log2 parts of the block's tile i >> parts_log2.
struct ChunkWalk {
  int32_t item, unit, end;

  __device__ __forceinline__ void enter(int new_item, int first_part, int parts_log2, int units) {
    item = new_item;
    const int part = first_part + (item & ((1 << parts_log2) - 1));
    unit = part_begin(units, part);
    end = part_begin(units, part + 1);
  }
};

#if __CUDA_ARCH__ >= 900
inline constexpr int kStageArrivals = 1;
#else
inline constexpr int kStageArrivals = device::kWarpSize;
#endif

// By all lanes of a warp: neighbouring bytes into its ring, counted on the stage's barrier.
__device__ __forceinline__ void request_chunk(uint32_t stage, const uint8_t* from, uint32_t bytes, uint32_t full,
                                              uint64_t policy, int lane) {
#if __CUDA_ARCH__ >= 900
  if (lane == 0) {
    device::barrier_expect(full, bytes);
    device::bulk_copy(stage, from, bytes, full, policy);
  }
#else
  for (uint32_t byte = lane * 16; byte < bytes; byte += device::kWarpSize * 16) {
    device::copy_async_16(stage + byte, from + byte, true);
  }
  device::barrier_arrive_with_copies(full);
#endif
}

// Sums into the shared memory of block `owner` of the cluster, at the address that they have there, counted on the
// barrier that all blocks have at the same address.
__device__ __forceinline__ void store_part(uint32_t address, float2 sums, int cluster, int owner, uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) {
    return device::cluster_store_counted(device::cluster_address(address, owner), sums,
                                         device::cluster_address(barrier, owner));
  }
#endif
  asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(address), "f"(sums.x), "f"(sums.y) : "memory");
}

template <class T, class Format>
__global__ void __launch_bounds__(kDecodeThreads, 2) decode(const __grid_constant__ DecodeParams p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t base = device::shared_address(shared);
  const int warp = __shfl_sync(device::kFullWarp, static_cast<int>(threadIdx.x) / device::kWarpSize, 0);
  const int lane = threadIdx.x % device::kWarpSize;
  const int cluster = 1 << p.cluster_log2;
  const int rank = static_cast<int>(blockIdx.x) & (cluster - 1);
  const int group = static_cast<int>(blockIdx.x) >> p.cluster_log2;
  const int first_tile = group * p.tiles + min(group, p.groups_with_more);
  const int tiles = p.tiles + (group < p.groups_with_more ? 1 : 0);
  const int parts_log2 = kPartsOfKLog2 - p.cluster_log2;  // parts of k that this block takes
  const int first_part = rank << parts_log2;
  const int items = tiles << parts_log2;
  const int first_unit = part_begin(p.units, first_part);
  const int own_units = part_begin(p.units, first_part + (1 << parts_log2)) - first_unit;
  const uint8_t* weight = p.weight + static_cast<int64_t>(first_tile) * p.units * Format::kBytes;
  const uint64_t policy = device::evict_first_policy();

  const uint32_t stage_bytes = p.chunk * Format::kBytes;
  const uint32_t ring = p.ring_offset + warp * p.stages * stage_bytes;
  const uint32_t all_parts = base + p.barriers_offset;  // barrier of the sums that the block finishes
  const uint32_t full = all_parts + 8 + warp * p.stages * 8;
  const int owned = (tiles - rank + cluster - 1) >> p.cluster_log2;
  ChunkWalk fill;
  fill.enter(warp, first_part, parts_log2, p.units);
  auto request = [&](int stage) {
    while (fill.unit == fill.end) {
      if (fill.item >= items) return;
      fill.enter(fill.item + kDecodeWarps, first_part, parts_log2, p.units);
    }
    if (fill.item >= items) return;
    const int n = min(p.chunk, fill.end - fill.unit);
    request_chunk(base + ring + stage * stage_bytes,
                  weight + ((fill.item >> parts_log2) * p.units + fill.unit) * int64_t{Format::kBytes},
                  n * Format::kBytes, full + stage * 8, policy, lane);
    fill.unit += n;
  };
  if (lane == 0) {
    for (int i = 0; i < p.stages; i++) device::barrier_init(full + i * 8, kStageArrivals);
#if __CUDA_ARCH__ >= 900
    if (warp == 0 && cluster > 1) {
      device::barrier_init(all_parts, 1);
      device::barrier_expect(all_parts, owned * kPartsOfK * p.m * kTileRows * static_cast<int>(sizeof(float)));
    }
    device::fence_barrier_init();
#endif
  }
  __syncwarp();
  // Weights are nobody's output: they may be read before the kernel in front has ended.
  for (int i = 0; i < p.stages; i++) request(i);
  device::allow_next_kernel();
#if __CUDA_ARCH__ >= 900
  __syncwarp();
  if (cluster > 1) device::cluster_arrive_relaxed();
#endif

  stage_x<T>(p, shared, first_unit * kUnitInputs, own_units * (kUnitInputs / 8));
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) device::cluster_wait();  // the neighbour has started: it may be sent sums
#endif

  const int g = lane / 4;
  const int t = lane % 4;
  // Columns without a token repeat the last token; their results are not used.
  const uint32_t x_lane = base + min(g, p.m - 1) * p.x_row_bytes + t * 16 - first_unit * kDecodeUnitXBytes;
  int stage = 0;
  uint32_t phase = 0;
  ChunkWalk at;
  for (at.enter(warp, first_part, parts_log2, p.units); at.item < items;
       at.enter(at.item + kDecodeWarps, first_part, parts_log2, p.units)) {
    float y[4] = {};
    const int tile = at.item >> parts_log2;
    const int part = first_part + (at.item & ((1 << parts_log2) - 1));
    for (int n; at.unit < at.end; at.unit += n) {
      n = min(p.chunk, at.end - at.unit);
      const unsigned char* unit = shared + ring + stage * stage_bytes;
      uint32_t x_unit = x_lane + at.unit * kDecodeUnitXBytes;
      device::barrier_wait(full + stage * 8, phase);
      int u = 0;
      if constexpr (Format::kScaleBlock == kUnitInputs) {
        for (; u + 2 <= n; u += 2) {
          add_units<T, Format, 2>(unit, x_unit, lane, y);
          unit += 2 * Format::kBytes;
          x_unit += 2 * kDecodeUnitXBytes;
        }
      }
      for (; u < n; u++) {
        add_units<T, Format, 1>(unit, x_unit, lane, y);
        unit += Format::kBytes;
        x_unit += kDecodeUnitXBytes;
      }
      __syncwarp();  // all lanes have read the stage
      request(stage);
      if (++stage == p.stages) {
        stage = 0;
        phase ^= 1;
      }
    }
    const uint32_t to =
        base + p.parts_offset +
        ((((tile >> p.cluster_log2) * kPartsOfK + part) * p.m + 2 * t) * 8 + g) * static_cast<int>(sizeof(float2));
    const int owner = tile & (cluster - 1);
    if (2 * t < p.m) store_part(to, make_float2(y[0], y[2]), cluster, owner, all_parts);
    if (2 * t + 1 < p.m) store_part(to + 64, make_float2(y[1], y[3]), cluster, owner, all_parts);
  }

  const int outputs = owned * p.m * 8;  // a thread adds those of rows g and g + 8
  int slot = p.m == 1 ? static_cast<int>(threadIdx.x) / 8 : static_cast<int>(threadIdx.x) / (8 * p.m);
  const auto* sums = reinterpret_cast<const float2*>(shared + p.parts_offset);  // [owned][kPartsOfK][m][8]
#if __CUDA_ARCH__ >= 900
  if (cluster > 1) device::barrier_wait(all_parts, 0);
#endif
  if (cluster == 1) __syncthreads();
  for (int e = threadIdx.x; e < outputs; e += kDecodeThreads) {
    if (e >= kDecodeThreads) slot = e / (8 * p.m);
    const int column = e - slot * 8 * p.m;  // of the tokens' rows
    const float2* part = sums + slot * kPartsOfK * p.m * 8 + column;
    float2 sum = part[0];
#pragma unroll
    for (int i = 1; i < kPartsOfK; i++) {
      const float2 next = part[i * p.m * 8];
      sum.x += next.x;
      sum.y += next.y;
    }
    store_outputs<T>(p.out, first_tile + (slot << p.cluster_log2) + rank, column % 8, column / 8, sum.x, sum.y);
  }
}

}  // namespace lorikeet::kernels::int4
