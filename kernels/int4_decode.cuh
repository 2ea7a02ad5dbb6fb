// The kernel of the int4 product for up to 16 tokens. Included by the .cu files that instantiate it.
//
// Weights are operand A of the tensor cores (16 outputs), tokens the 8 or 16 columns. The blocks of a cluster share a
// range of tiles and divide the slabs (k) among them, so a block stages only its part of x. Every warp streams whole
// slabs through a ring of its own with bulk copies; there is no block-wide synchronisation while it does. The sum of a
// slab goes to the block of the cluster that owns the tile, which adds the slabs in the order of k.
//
// On devices without clusters the same blocks write the sums of their slabs to scratch memory, and add_slabs, a kernel
// of its own, adds them.
#pragma once

#include "kernels/async_copy.cuh"
#include "kernels/device_math.cuh"
#include "kernels/int4_decode.h"
#include "kernels/int4_layout.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kWarps = kInt4DecodeWarps;
inline constexpr int kThreads = kWarps * device::kWarpSize;
inline constexpr int kRowPadding = 64;  // bytes after a token's x in shared memory: neighbouring tokens in other banks

struct DecodeParams {
  const uint8_t* weight;
  const int32_t* permutation;  // or null
  const void* x;
  void* y;
  const float* bias;  // or null
  float* scratch;     // sums of slabs [tiles][slabs][m][16], where there are no clusters
  int64_t x_stride, y_stride;
  int32_t m, n, k, tiles, units, slab_units, slabs;
  int32_t cluster, clusters, ring_depth, round_tiles, exchange_buffers;
  int32_t x_row_bytes;                                              // in shared memory
  int32_t x_offset, sums_offset, exchange_offset, barriers_offset;  // of shared memory, bytes
  float factor;
  bool paired, silu_mul;
};

// The tensor cores see q as the subnormal q * 2^-24 (fp16) or q * 2^-133 (bf16). fp16 products stay well inside float.
// bf16 activations are lifted by 2^64 as they are staged, so that products are no subnormals of float.
template <class T>
struct Magnitude;
template <>
struct Magnitude<__half> {
  static constexpr float kSum = 0x1p-24F;  // what the accumulators hold per unit of q * x
  static constexpr float kInverse = 0x1p24F;
};
template <>
struct Magnitude<__nv_bfloat16> {
  static constexpr float kSum = 0x1p-69F;
  static constexpr float kInverse = 0x1p69F;
};

template <class T>
__device__ __forceinline__ uint32_t lift(uint32_t pair) {
  if constexpr (__is_same(T, __nv_bfloat16)) {
    const __nv_bfloat162 by = __floats2bfloat162_rn(0x1p64F, 0x1p64F);
    const __nv_bfloat162 lifted = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&pair), by);
    return *reinterpret_cast<const uint32_t*>(&lifted);
  }
  return pair;
}

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

// Brings x of `units` units from first_unit on into shared memory in the order of the tensor cores, and the sums of x
// over the inputs of every scale: sums[block][column], times the zero where all zeros are alike.
template <class T, int kColumns, int kScaleBlock, bool kAsymmetric>
__device__ __forceinline__ void stage_x(const DecodeParams& p, unsigned char* x_shared, float* sums, int first_unit,
                                        int units) {
  constexpr int kBatch = 4;  // loads in flight per thread
  constexpr int kChunksOfBlock = kScaleBlock / 8;
  const int chunks = units * (kUnitInputs / 8);  // of 8 inputs; a multiple of 16, so neighbours belong to one token
  const int total = p.m * chunks;
  for (int begin = threadIdx.x; begin - static_cast<int>(threadIdx.x) < total; begin += kBatch * kThreads) {
    uint4 v[kBatch];
    int token[kBatch];
    int chunk[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      const int i = begin + b * kThreads;
      token[b] = i / chunks;
      chunk[b] = i - token[b] * chunks;
      const int k = first_unit * kUnitInputs + chunk[b] * 8;
      v[b] = i < total && k < p.k ? load_x<T>(p, token[b], k) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      if (begin - static_cast<int>(threadIdx.x) + b * kThreads >= total) break;  // alike for the whole block
      const float2 e0 = device::unpack<T>(v[b].x);
      const float2 e1 = device::unpack<T>(v[b].y);
      const float2 e2 = device::unpack<T>(v[b].z);
      const float2 e3 = device::unpack<T>(v[b].w);
      float sum = ((e0.x + e0.y) + (e1.x + e1.y)) + ((e2.x + e2.y) + (e3.x + e3.y));
#pragma unroll
      for (int lanes = 1; lanes < kChunksOfBlock; lanes *= 2) sum += __shfl_xor_sync(device::kFullWarp, sum, lanes);
      uint4 out = transpose_pairs(v[b]);
      out = make_uint4(lift<T>(out.x), lift<T>(out.y), lift<T>(out.z), lift<T>(out.w));
      if (begin + b * kThreads >= total) continue;
      *reinterpret_cast<uint4*>(x_shared + token[b] * p.x_row_bytes + chunk[b] * 16) = out;
      if (chunk[b] % kChunksOfBlock == 0) {
        sums[chunk[b] / kChunksOfBlock * kColumns + token[b]] =
            sum * (Magnitude<T>::kSum * (kAsymmetric ? 1.0F : 8.0F));
      }
    }
  }
}

__device__ __forceinline__ uint4 load_shared_16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

// What a unit's tensor-core steps have summed for one scale is scaled and added to y: y += s * (acc - z * sum(x)).
template <class T, int kTiles, int kScaleBlock, bool kAsymmetric>
__device__ __forceinline__ void apply_scale(const unsigned char* scales, int index, const float* sums,
                                            const float (&low)[kTiles][4], const float (&high)[kTiles][4],
                                            float (&y)[kTiles][4], int g, int t) {
  const float2 s = __half22float2(reinterpret_cast<const __half2*>(scales)[index * 8 + g]);
  float2 z = make_float2(1.0F, 1.0F);  // the sums hold the zero already
  if constexpr (kAsymmetric) {
    const uchar2 zeros = reinterpret_cast<const uchar2*>(scales + scale_bytes(kScaleBlock))[index * 8 + g];
    z = make_float2(static_cast<float>(zeros.x), static_cast<float>(zeros.y));
  }
#pragma unroll
  for (int c = 0; c < kTiles; c++) {
    const float2 sum = *reinterpret_cast<const float2*>(sums + c * 8 + 2 * t);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float all = fmaf(high[c][i], 0.0625F, low[c][i]);
      const float zero = i < 2 ? z.x : z.y;
      const float centred = fmaf(-zero, i % 2 == 0 ? sum.x : sum.y, all);
      y[c][i] = fmaf(i < 2 ? s.x : s.y, centred, y[c][i]);
    }
  }
}

// y += one unit of weights (in shared memory) times x. x_lane: the address of this lane's column and pair; the columns
// of the next tile are x_step bytes further. sums: of the unit's first scale.
template <class T, int kTiles, int kScaleBlock, bool kAsymmetric>
__device__ __forceinline__ void add_unit(const unsigned char* unit, uint32_t x_lane, int x_step, const float* sums,
                                         float (&y)[kTiles][4], int lane) {
  constexpr int kColumns = 8 * kTiles;
  const int g = lane / 4;
  const int t = lane % 4;
  const uint32_t address = device::shared_address(unit) + lane * 16;
  float low[kTiles][4] = {};
  float high[kTiles][4] = {};
#pragma unroll
  for (int j = 0; j < kUnitInputs / kSubBlock; j += 2) {
    const uint4 words = load_shared_16(address + j / 2 * 512);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const uint32_t w0 = i == 0 ? words.x : words.z;
      const uint32_t w1 = i == 0 ? words.y : words.w;
      const uint32_t v0 = w0 >> 8;
      const uint32_t v1 = w1 >> 8;
#pragma unroll
      for (int c = 0; c < kTiles; c++) {
        const uint4 x = load_shared_16(x_lane + c * x_step + (j + i) * 64);
        device::mma_m16n8k16<T>(low[c], w0 & 0x000f000fU, v0 & 0x000f000fU, w1 & 0x000f000fU, v1 & 0x000f000fU, x.x,
                                x.y);
        device::mma_m16n8k16<T>(high[c], w0 & 0x00f000f0U, v0 & 0x00f000f0U, w1 & 0x00f000f0U, v1 & 0x00f000f0U, x.z,
                                x.w);
      }
      if constexpr (kScaleBlock == kSubBlock) {
        apply_scale<T, kTiles, kScaleBlock, kAsymmetric>(unit + kNibbleBytes, j + i, sums + (j + i) * kColumns, low,
                                                         high, y, g, t);
#pragma unroll
        for (int c = 0; c < kTiles; c++) {
#pragma unroll
          for (int e = 0; e < 4; e++) low[c][e] = high[c][e] = 0.0F;
        }
      }
    }
  }
  if constexpr (kScaleBlock == kUnitInputs) {
    apply_scale<T, kTiles, kScaleBlock, kAsymmetric>(unit + kNibbleBytes, 0, sums, low, high, y, g, t);
  }
}

// The slabs of one warp, in the order in which it uses them, and where they are in shared memory. Slab i of a block is
// slab first + i % slabs of tile i / slabs of the cluster's; a warp takes every kWarps-th.
struct SlabRing {
  unsigned char* slots;   // this warp's
  uint32_t barriers;      // likewise
  const uint8_t* weight;  // of the cluster's first tile
  int32_t unit_bytes, slot_bytes, depth;
  int32_t units, slab_units, first_slab, slabs, total;
  int32_t next;  // to be requested
  int32_t filled = 0, used = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ void request(int lane) {
    if (next >= total) {
#if __CUDA_ARCH__ < 900
      device::commit_async_copies();
#endif
      return;
    }
    const int tile = next / slabs;
    const int unit = (first_slab + next % slabs) * slab_units;
    const uint8_t* from = weight + (static_cast<int64_t>(tile) * units + unit) * unit_bytes;
    const uint32_t bytes = min(slab_units, units - unit) * unit_bytes;
    const uint32_t to = device::shared_address(slots + filled * slot_bytes);
#if __CUDA_ARCH__ >= 900
    if (lane == 0) {
      device::barrier_expect(barriers + filled * 8, bytes);
      device::bulk_copy(to, from, bytes, barriers + filled * 8, device::evict_first_policy());
    }
#else
    for (uint32_t b = lane * 16; b < bytes; b += device::kWarpSize * 16) device::copy_async_16(to + b, from + b, true);
    device::commit_async_copies();
#endif
    next += kWarps;
    if (++filled == depth) filled = 0;
  }

  __device__ __forceinline__ const unsigned char* wait() {
#if __CUDA_ARCH__ >= 900
    device::barrier_wait(barriers + used * 8, phase);
#else
    device::wait_async_copies<1>();  // the depth is 2 here
    __syncwarp();
#endif
    return slots + used * slot_bytes;
  }

  __device__ __forceinline__ void release(int lane) {
    __syncwarp();
    if (++used == depth) {
      used = 0;
      phase ^= 1;
    }
    request(lane);
  }
};

// The outputs of tile `tile`, from the sums of its slabs [slabs][m][16]; e counts over [m][16], or [m][8] pairs.
template <class T>
__device__ __forceinline__ void finish_output(const DecodeParams& p, int tile, const float* partial, int e) {
  auto sum = [&](int token, int row) {
    float total = 0;
    for (int s = 0; s < p.slabs; s++) total += partial[(s * p.m + token) * kTileRows + row];
    total *= p.factor;
    const int output = p.paired ? (row < 8 ? 0 : p.n / 2 - 8) + tile * 8 + row : tile * kTileRows + row;
    const int limit = p.paired && row < 8 ? p.n / 2 : p.n;
    if (p.bias != nullptr && output < limit) total += p.bias[output];
    return total;
  };
  T* y = static_cast<T*>(p.y);
  if (p.silu_mul) {
    const int token = e / 8;
    const int output = tile * 8 + e % 8;
    // Rounded as activations of their own would be: a row keeps its bits in a batch where an adapter's delta comes
    // between the product and the activation.
    const float gate = device::to_float(device::from_float<T>(sum(token, e % 8)));
    const float up = device::to_float(device::from_float<T>(sum(token, e % 8 + 8)));
    if (output < p.n / 2) y[token * p.y_stride + output] = device::from_float<T>(gate / (1.0F + __expf(-gate)) * up);
    return;
  }
  const int token = e / kTileRows;
  const int row = e % kTileRows;
  const int output = p.paired ? (row < 8 ? 0 : p.n / 2 - 8) + tile * 8 + row : tile * kTileRows + row;
  const int limit = p.paired && row < 8 ? p.n / 2 : p.n;
  const float value = sum(token, row);
  if (output < limit) y[token * p.y_stride + output] = device::from_float<T>(value);
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_slabs(DecodeParams p) {
  device::allow_next_kernel();
  device::wait_for_previous_kernel();
  const float* partial = p.scratch + static_cast<int64_t>(blockIdx.x) * p.slabs * p.m * kTileRows;
  for (int e = threadIdx.x; e < p.m * (p.silu_mul ? 8 : kTileRows); e += kThreads) {
    finish_output<T>(p, blockIdx.x, partial, e);
  }
}

template <class T, int kTiles, int kScaleBlock, bool kAsymmetric>
__global__ void __launch_bounds__(kThreads, 2) decode(const __grid_constant__ DecodeParams p) {
  constexpr int kColumns = 8 * kTiles;
  constexpr int kScalesOfUnit = kUnitInputs / kScaleBlock;
  extern __shared__ __align__(128) unsigned char shared[];
  const int warp = threadIdx.x / device::kWarpSize;
  const int lane = threadIdx.x % device::kWarpSize;
  const int cluster = blockIdx.x / p.cluster;
  const int rank = blockIdx.x % p.cluster;
  const int first_tile = static_cast<int64_t>(p.tiles) * cluster / p.clusters;
  const int tiles = static_cast<int64_t>(p.tiles) * (cluster + 1) / p.clusters - first_tile;
  const int first_slab = p.slabs * rank / p.cluster;
  const int slabs = p.slabs * (rank + 1) / p.cluster - first_slab;
  const int first_unit = first_slab * p.slab_units;

  SlabRing ring;
  ring.unit_bytes = unit_bytes(kScaleBlock, kAsymmetric);
  ring.slot_bytes = p.slab_units * ring.unit_bytes;
  ring.depth = p.ring_depth;
  ring.slots = shared + warp * p.ring_depth * ring.slot_bytes;
  ring.barriers = device::shared_address(shared + p.barriers_offset) + warp * p.ring_depth * 8;
  ring.weight = p.weight + static_cast<int64_t>(first_tile) * p.units * ring.unit_bytes;
  ring.units = p.units;
  ring.slab_units = p.slab_units;
  ring.first_slab = first_slab;
  ring.slabs = slabs;
  ring.total = tiles * slabs;
  ring.next = warp;
#if __CUDA_ARCH__ >= 900
  if (lane == 0) {
    for (int i = 0; i < p.ring_depth; i++) device::barrier_init(ring.barriers + i * 8, 1);
    device::fence_barrier_init();
  }
  __syncwarp();
#endif
  // Weights are nobody's output: they may be read before the kernel in front has ended.
  for (int i = 0; i < p.ring_depth; i++) ring.request(lane);
  device::allow_next_kernel();
  __syncwarp();
#if __CUDA_ARCH__ >= 900
  device::cluster_arrive();  // waited for before the first store into a neighbour: it must have started
#endif
  device::wait_for_previous_kernel();

  float* sums = reinterpret_cast<float*>(shared + p.sums_offset);
  const int end_unit = min((first_slab + slabs) * p.slab_units, p.units);
  stage_x<T, kColumns, kScaleBlock, kAsymmetric>(p, shared + p.x_offset, sums, first_unit, end_unit - first_unit);
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  device::cluster_wait();
  float* exchange = reinterpret_cast<float*>(shared + p.exchange_offset);
#endif

  const int g = lane / 4;
  const int t = lane % 4;
  // Columns without a token repeat the last token; their results are not used.
  static_assert(kTiles <= 2);
  const int first_column = min(g, p.m - 1);
  const uint32_t x_lane = device::shared_address(shared + p.x_offset) + first_column * p.x_row_bytes + t * 16;
  const int x_step = (min(g + 8, p.m - 1) - first_column) * p.x_row_bytes;

  int i = warp;
  for (int round = 0, round_begin = 0; round_begin < tiles; round++, round_begin += p.round_tiles) {
    const int round_end = min(round_begin + p.round_tiles, tiles);
#if __CUDA_ARCH__ >= 900
    float* buffer = exchange + static_cast<int64_t>(round % p.exchange_buffers) * (p.round_tiles / p.cluster) *
                                   p.slabs * p.m * kTileRows;
    if (round > 0 && p.exchange_buffers == 1) {
      device::cluster_arrive();
      device::cluster_wait();
    }
#endif
    for (; i < round_end * slabs; i += kWarps) {
      const int tile = i / slabs;
      const int slab = first_slab + i % slabs;
      const unsigned char* units = ring.wait();
      float y[kTiles][4] = {};
      const int count = min(p.slab_units, p.units - slab * p.slab_units);
      const int local_unit = slab * p.slab_units - first_unit;
#pragma unroll 1
      for (int u = 0; u < count; u++) {
        add_unit<T, kTiles, kScaleBlock, kAsymmetric>(units + u * ring.unit_bytes,
                                                      x_lane + (local_unit + u) * (kUnitInputs * 2), x_step,
                                                      sums + (local_unit + u) * kScalesOfUnit * kColumns, y, lane);
      }
      ring.release(lane);
#if __CUDA_ARCH__ >= 900
      const int in_round = tile - round_begin;
      float* target = buffer + (in_round / p.cluster * p.slabs + slab) * p.m * kTileRows;
      const uint32_t address = device::cluster_address(device::shared_address(target), in_round % p.cluster);
#else
      float* target = p.scratch + (static_cast<int64_t>(first_tile + tile) * p.slabs + slab) * p.m * kTileRows;
#endif
#pragma unroll
      for (int c = 0; c < kTiles; c++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int token = c * 8 + 2 * t + e % 2;
          const int row = g + e / 2 * 8;
          if (token >= p.m) continue;
#if __CUDA_ARCH__ >= 900
          device::cluster_store(address + (token * kTileRows + row) * 4, y[c][e]);
#else
          target[token * kTileRows + row] = y[c][e];
#endif
        }
      }
    }
#if __CUDA_ARCH__ >= 900
    __syncwarp();
    device::cluster_arrive();
    device::cluster_wait();
    const int outputs = p.m * (p.silu_mul ? 8 : kTileRows);
    const int owned = (round_end - round_begin - rank + p.cluster - 1) / p.cluster;
    for (int e = threadIdx.x; e < owned * outputs; e += kThreads) {
      const int own = e / outputs;
      finish_output<T>(p, first_tile + round_begin + own * p.cluster + rank, buffer + own * p.slabs * p.m * kTileRows,
                       e % outputs);
    }
#endif
  }
}

// The kernels are compiled in one file per element type.
using DecodeKernel = void (*)(DecodeParams);
template <class T>
DecodeKernel decode_kernel(int32_t column_tiles, int32_t scale_block, bool asymmetric);
template <class T>
DecodeKernel add_slabs_kernel();

}  // namespace lorikeet::kernels::int4
