// Keys and values in shared memory, as the attention kernels keep them. Included by .cu files only.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::attention {

inline constexpr int kChunk = 8;  // elements of a 16-byte piece of shared memory

// Where piece `chunk` of row `row` of a tile lies in shared memory, in bytes: pieces of 8 neighbouring rows are spread
// over all banks.
template <int kHeadDim>
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) {
  return static_cast<uint32_t>(row * kHeadDim + (chunk ^ (row & 7)) * kChunk) * 2;
}

// 8 elements of the cache as 8 of T. scale: of fp8.
template <class T, class Kv>
__device__ __forceinline__ uint4 load_chunk(const Kv* source, float scale) {
  uint4 result;
  if constexpr (sizeof(Kv) == 1) {
    const uint2 packed = *reinterpret_cast<const uint2*>(source);
    const auto scaled = [&](uint32_t two) {
      const __half2 v(__nv_cvt_fp8x2_to_halfraw2(static_cast<uint16_t>(two), __NV_E4M3));
      const float2 f = __half22float2(v);
      return device::pack<T>(f.x * scale, f.y * scale);
    };
    result = make_uint4(scaled(packed.x & 0xffffU), scaled(packed.x >> 16), scaled(packed.y & 0xffffU),
                        scaled(packed.y >> 16));
  } else {
    const uint4 packed = *reinterpret_cast<const uint4*>(source);
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
    uint32_t converted[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 f = device::unpack<Kv>(words[i]);
      converted[i] = device::pack<T>(f.x, f.y);
    }
    result = make_uint4(converted[0], converted[1], converted[2], converted[3]);
  }
  return result;
}

// Brings 8 elements of the cache to shared memory as 8 of T, without waiting where no conversion is needed. Not valid:
// zeros, and nothing is read.
template <class T, class Kv>
__device__ __forceinline__ void fetch_chunk(uint32_t target, const Kv* source, bool valid, float scale = 1) {
  if constexpr (__is_same(T, Kv)) {
    device::copy_async_16(target, source, valid);
  } else {
    const uint4 chunk = valid ? load_chunk<T, Kv>(source, scale) : make_uint4(0, 0, 0, 0);
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(target), "r"(chunk.x), "r"(chunk.y), "r"(chunk.z),
                 "r"(chunk.w)
                 : "memory");
  }
}

}  // namespace lorikeet::kernels::attention
