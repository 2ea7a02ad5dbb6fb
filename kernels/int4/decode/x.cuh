// How x comes into the shared memory of the kernel that keeps it (kernels/int4/decode/int4_decode.cuh): as it is,
// permuted, or made of the residual stream. Included by .cu files only.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/layout.h"
#include "kernels/int4/base/output.cuh"
#include "kernels/int4/decode/lora_shared.cuh"
#include "kernels/int4/decode/warps.h"
#include "kernels/layer/rms_norm_row.cuh"

namespace lorikeet::kernels::int4 {

inline constexpr int kDecodeColumns = 8;
inline constexpr int kDecodeRowPadding = 64;  // bytes after a token's x: neighbouring tokens in other banks
inline constexpr int kXLoads = 7;       // of x, of a thread, in flight: eight tokens then come in one or two rounds
inline constexpr int kFewXLoads = 5;    // where registers are few: of eight tokens and 5,120 inputs
inline constexpr int kTokenXLoads = 2;  // of one token
inline constexpr int kDecodeUnitXBytes = 2 * kUnitInputs;

inline constexpr int kNormVectors = 3;    // of a thread, in which x of the residual stream fits
inline constexpr int kDecodeCluster = 2;  // blocks that divide k, where clusters are used

struct DecodeParams {
  const uint8_t* weight;
  const int32_t* permutation;  // or null
  const void* x;
  int64_t x_stride;
  OutputParams out;
  NormPrologue norm;  // or without a residual
  int32_t m, k, units;
  int32_t cluster_log2;             // of the number of blocks that divide k, 1 or kDecodeCluster
  int32_t tiles, groups_with_more;  // of a group of blocks; those that have one more
  int32_t stages, chunk;            // of a warp's ring; units of a stage
  int32_t first_stages;             // those asked for before x
  int32_t x_row_bytes;              // in shared memory
  int32_t parts_offset, ring_offset, barriers_offset, squares_offset;  // of shared memory
  DecodeLoraParams lora;
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

template <class T, bool kPermuted>
__device__ __forceinline__ uint4 load_x(const DecodeParams& p, int token, int k) {
  const T* row = static_cast<const T*>(p.x) + token * p.x_stride;
  if constexpr (!kPermuted) return __ldcg(reinterpret_cast<const uint4*>(row + k));
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

// When x is there: brings that of `chunks` times 8 inputs from first_k into shared memory in the order of the tensor
// cores, zeros behind its end. chunks: a multiple of 4, so that neighbours belong to one token. kBatch: loads in flight
// per thread. asked() is called once, when the first of x has been asked for.
template <class T, int kBatch, bool kPermuted, class Asked>
__device__ __forceinline__ void stage_x(const DecodeParams& p, unsigned char* x_shared, int thread, int first_k,
                                        int chunks, Asked&& asked) {
  const int total = p.m * chunks;
  // i / chunks is the upper half of i * inverse, as i * chunks < 2^32.
  const uint32_t inverse = 0xffffffffU / static_cast<uint32_t>(chunks) + 1;
  for (int begin = 0; begin < total; begin += kBatch * kDecodeThreads) {
    uint4 v[kBatch];
    int to[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      if (begin + b * kDecodeThreads >= total) break;  // alike for the whole block
      const int i = begin + b * kDecodeThreads + thread;
      const int token = static_cast<int>(__umulhi(static_cast<uint32_t>(i), inverse));
      const int chunk = i - token * chunks;
      const int k = first_k + chunk * 8;
      v[b] = i < total && k < p.k ? load_x<T, kPermuted>(p, token, k) : make_uint4(0, 0, 0, 0);
      to[b] = token * p.x_row_bytes + chunk * 16;
    }
    if (begin == 0) asked();
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      if (begin + b * kDecodeThreads >= total) break;
      const uint4 out = transpose_pairs(v[b]);
      if (begin + b * kDecodeThreads + thread < total) {
        *reinterpret_cast<uint4*>(x_shared + to[b]) = out;
      }
    }
  }
}

// A thread's columns of the norm's weight: read-only.
using NormWeight = float4[kNormVectors];
__device__ __forceinline__ void load_norm_weight(const DecodeParams& p, int thread, NormWeight& weight) {
#pragma unroll
  for (int v = 0; v < kNormVectors; v++) {
    const int column = device::norm_column(v, thread);
    if (column < p.k) weight[v] = __ldg(reinterpret_cast<const float4*>(p.norm.weight + column));
  }
}

// Makes x of the residual stream itself, for up to kRows tokens; brings the inputs first_k .. end_k into shared
// memory. of_warp: [kNormRows][kNormWarps] floats of shared memory.
template <class T, int kRows>
__device__ __forceinline__ void stage_normed_x(const DecodeParams& p, int thread, const NormWeight& weight,
                                               uint32_t x_shared, float* of_warp, int first_k, int end_k) {
  static_assert(kDecodeThreads == device::kNormThreads);
  const int warp = thread / device::kWarpSize;
  device::wait_for_previous_kernel();
  float4 x[kRows][kNormVectors];
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (kRows > 1 && r >= p.m) break;
    const float* residual = p.norm.residual + r * p.k;
    const T* delta = static_cast<const T*>(p.norm.delta) + r * p.k;
    uint2 added[kNormVectors];
#pragma unroll
    for (int v = 0; v < kNormVectors; v++) {
      const int column = device::norm_column(v, thread);
      x[r][v] = make_float4(0, 0, 0, 0);
      added[v] = make_uint2(0, 0);
      if (column >= p.k) continue;
      x[r][v] = __ldcg(reinterpret_cast<const float4*>(residual + column));
      if (p.norm.delta != nullptr) added[v] = __ldcg(reinterpret_cast<const uint2*>(delta + column));
    }
    if (p.norm.delta == nullptr) continue;
#pragma unroll
    for (int v = 0; v < kNormVectors; v++) x[r][v] = device::add_delta<T>(x[r][v], added[v]);
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (kRows > 1 && r >= p.m) break;
    float squares = 0;
#pragma unroll
    for (int v = 0; v < kNormVectors; v++) {
      if (device::norm_column(v, thread) < p.k) squares = device::add_squares(squares, x[r][v]);
    }
    squares = device::warp_sum(squares);
    if (threadIdx.x % device::kWarpSize == 0) of_warp[r * device::kNormWarps + warp] = squares;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (kRows > 1 && r >= p.m) break;
    const float factor = device::norm_factor(of_warp + r * device::kNormWarps, p.k, p.norm.epsilon);
#pragma unroll
    for (int v = 0; v < kNormVectors; v++) {
      const int column = device::norm_column(v, thread);
      if (column >= p.k) break;
      // All blocks have the sum; each writes other columns of it, or the first what is left.
      const int writer = v * device::kNormWarps + warp;
      if (p.norm.residual_out != nullptr &&
          static_cast<int>(blockIdx.x) == (writer < static_cast<int>(gridDim.x) ? writer : 0)) {
        *reinterpret_cast<float4*>(p.norm.residual_out + r * p.k + column) = x[r][v];
      }
      if (column < first_k || column >= end_k) continue;
      // Pair i of chunk q of a sub-block lies in lane i's piece, word q: as transpose_pairs leaves it.
      const uint2 pairs = device::normed<T>(x[r][v], factor, weight[v]);
      const int at = column - first_k;
      const uint32_t to =
          x_shared + r * p.x_row_bytes + at / kSubBlock * (2 * kSubBlock) + at / 4 % 2 * 32 + at / 8 % 4 * 4;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(pairs.x) : "memory");
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(to + 16), "r"(pairs.y) : "memory");
    }
  }
}

}  // namespace lorikeet::kernels::int4
