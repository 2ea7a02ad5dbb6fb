// What a warp of the decode attention does with a tile of 16 positions: scores of its keys, sums of its values. Included by
// attention_decode_cuda.cu.
#pragma once

#include "kernels/attention/decode_feed.cuh"
#include "kernels/attention/decode_join.cuh"
#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::attention {

// Puts the newest position's key (kHalf 0) or value into the tile that a warp has got without it.
template <class T, class Kv, int kHeadDim, int kHalf>
__device__ __forceinline__ void add_newest(Shared<T, Kv, kHeadDim>& shared, int warp, int slot, int item, int row) {
  constexpr bool kFp8 = kKeepsFp8<Kv>;
  constexpr int kPieces = kHeadDim * (kFp8 ? 1 : 2) / 16;
  const int piece = threadIdx.x % device::kWarpSize;
  unsigned char* tile = shared.ring[warp][slot][kHalf];
  if (piece < kPieces) {
    const uint32_t place = !kFp8        ? swizzled<kHeadDim>(row, piece)
                           : kHalf == 0 ? fp8_key_place<kHeadDim>(row, piece)
                                        : fp8_value_place<kHeadDim>(row, piece);
    *reinterpret_cast<uint4*>(tile + place) = reinterpret_cast<const uint4*>(shared.newest[item][kHalf])[piece];
  }
  if (kFp8 && piece == 0) shared.scales[warp][slot][kHalf][row] = shared.newest_scales[item][kHalf];
  __syncwarp();
}

// Four neighbouring values of fp8 as two pairs of T. By the conversion of two at a time: the same by integer operations
// (e4m3's bits are fp16's with another bias of the exponent) was tried and is slower, as those are what the loop has most of.
template <class T>
__device__ __forceinline__ void widen_four(uint32_t bytes, uint32_t& low, uint32_t& high) {
#if __CUDA_ARCH__ >= 890
  if constexpr (__is_same(T, __half)) {  // by halves of a register: a shift by 16 would be an instruction of its own
    asm("{.reg .b16 a, b;\n"
        "mov.b32 {a, b}, %2;\n"
        "cvt.rn.f16x2.e4m3x2 %0, a;\n"
        "cvt.rn.f16x2.e4m3x2 %1, b;}"
        : "=r"(low), "=r"(high)
        : "r"(bytes));
    return;
  }
#endif
  low = device::widen_fp8<T>(static_cast<uint16_t>(bytes));
  high = device::widen_fp8<T>(static_cast<uint16_t>(bytes >> 16));
}

// q k^T of a tile's positions g and g + 8 and heads 2 t and 2 t + 1, in two parts that are to be added. Keys in fp8 meet
// the elements of q in another order (load_query), in which a lane reads neighbours: head_dim / 4 from t * head_dim / 4
// on.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void score_tile(const unsigned char* keys, const uint32_t (&query)[kHeadDim / 16][2],
                                           float (&even)[4], float (&odd)[4]) {
  constexpr int kSteps = kHeadDim / 16;
  const int lane = threadIdx.x % device::kWarpSize;
  if constexpr (kKeepsFp8<Kv>) {
    constexpr int kPieces = kHeadDim / 64;
#pragma unroll
    for (int piece = 0; piece < kPieces; piece++) {
      uint4 rows[2];
#pragma unroll
      for (int r = 0; r < 2; r++) {
        rows[r] = *reinterpret_cast<const uint4*>(
            keys + fp8_key_place<kHeadDim>(lane / 4 + 8 * r, lane % 4 * kPieces + piece));
      }
      const uint32_t low[4] = {rows[0].x, rows[0].y, rows[0].z, rows[0].w};
      const uint32_t high[4] = {rows[1].x, rows[1].y, rows[1].z, rows[1].w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int s = 4 * piece + i;
        uint32_t a[4];
        widen_four<T>(low[i], a[0], a[2]);
        widen_four<T>(high[i], a[1], a[3]);
        device::mma_m16n8k16<T>(s % 2 == 0 ? even : odd, a[0], a[1], a[2], a[3], query[s][0], query[s][1]);
      }
    }
  } else {
    const uint32_t base = device::shared_address(keys);
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      uint32_t a[4];
      device::load_matrices(a, base + swizzled<kHeadDim>(lane % 16, 2 * s + lane / 16));
      device::mma_m16n8k16<T>(s % 2 == 0 ? even : odd, a[0], a[1], a[2], a[3], query[s][0], query[s][1]);
    }
  }
}

// The elements of q that a lane has for step s of score_tile. q: of head g.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void load_query(const T* q, int s, uint32_t (&pair)[2]) {
  const int t = threadIdx.x % 4;
  const auto two = [q](int element) { return *reinterpret_cast<const uint32_t*>(q + element); };
  if constexpr (kKeepsFp8<Kv>) {
    pair[0] = two(t * (kHeadDim / 4) + 4 * s);
    pair[1] = two(t * (kHeadDim / 4) + 4 * s + 2);
  } else {
    pair[0] = two(16 * s + 2 * t);
    pair[1] = two(16 * s + 8 + 2 * t);
  }
}

// What P is multiplied by where values are in fp8, beside their scales, until a segment ends: so that small probabilities
// keep their bits in fp16.
inline constexpr float kRaised = 256;

// out^T += V^T P^T of a tile; p0 and p1 are of positions 2 t, 2 t + 1 and 2 t + 8, 2 t + 9. With values in fp8, row g of
// step s is element g * head_dim / 8 + 2 s of the head, and row g + 8 the next one, as store_heads knows.
template <class T, class Kv, int kHeadDim>
__device__ __forceinline__ void add_values(const unsigned char* values, uint32_t p0, uint32_t p1,
                                           float (&out)[kHeadDim / 16][4]) {
  constexpr int kSteps = kHeadDim / 16;
  const int lane = threadIdx.x % device::kWarpSize;
  if constexpr (kKeepsFp8<Kv>) {
    constexpr int kWords = kHeadDim / 32;  // of a lane's elements of a position
    const int g = lane / 4;
    uint32_t words[4][kWords];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = lane % 4 * 2 + i % 2 + i / 2 * 8;
      if constexpr (kHeadDim == 128) {
        const uint4 v = *reinterpret_cast<const uint4*>(values + fp8_value_place<kHeadDim>(row, g));
        words[i][0] = v.x, words[i][1] = v.y, words[i][2] = v.z, words[i][3] = v.w;
      } else {
        const uint2 v = *reinterpret_cast<const uint2*>(values + fp8_value_place<kHeadDim>(row, g / 2) + g % 2 * 8);
        words[i][0] = v.x, words[i][1] = v.y;
      }
    }
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      // Two elements of two positions: pairs of positions are what the step takes.
      const uint32_t select = s % 2 == 0 ? 0x5140 : 0x7362;
      uint32_t a[4];
      widen_four<T>(__byte_perm(words[0][s / 2], words[1][s / 2], select), a[0], a[1]);
      widen_four<T>(__byte_perm(words[2][s / 2], words[3][s / 2], select), a[2], a[3]);
      device::mma_m16n8k16<T>(out[s], a[0], a[1], a[2], a[3], p0, p1);
    }
  } else {
    const uint32_t base = device::shared_address(values);
#pragma unroll
    for (int s = 0; s < kSteps; s++) {
      uint32_t a[4];
      device::load_matrices_transposed(a, base + swizzled<kHeadDim>(lane % 8 + lane / 16 * 8, 2 * s + lane / 8 % 2));
      device::mma_m16n8k16<T>(out[s], a[0], a[1], a[2], a[3], p0, p1);
    }
  }
}

// Stores a warp's result as [heads, head_dim].
template <class Kv, int kHeadDim>
__device__ __forceinline__ void store_heads(const WarpResult<kHeadDim / 16>& result, float (*out)[kHeadDim + 4]) {
  const int g = threadIdx.x % device::kWarpSize / 4;
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int s = 0; s < kHeadDim / 16; s++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int element = kKeepsFp8<Kv> ? g * (kHeadDim / 8) + 2 * s + e / 2 : 16 * s + g + e / 2 * 8;
      out[2 * t + e % 2][element] = result.out[s][e];
    }
  }
}

}  // namespace lorikeet::kernels::attention
