// Scales on decoded weights: (q - z) * scale, rounded to the type of the activations, as both kernels for many tokens
// multiply it. Included by .cu files only.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/fragment.cuh"

namespace lorikeet::kernels::int4 {

// Scales of rows g and g + 8, ready to multiply pairs. fp16: stored scales reach 2^15, so that they are lowered by 2^8,
// which kFactor undoes at the end.
template <class T>
struct PairScale;
template <>
struct PairScale<__half> {
  static constexpr float kFactor = 256;
  __half2 s[2];
  __device__ __forceinline__ explicit PairScale(uint32_t pair) {
    const __half2 both = __hmul2(*reinterpret_cast<const __half2*>(&pair), __float2half2_rn(1 / kFactor));
    s[0] = __low2half2(both);
    s[1] = __high2half2(both);
  }
  __device__ __forceinline__ uint32_t apply(uint32_t q, int half) const {
    const __half2 r = __hmul2(*reinterpret_cast<const __half2*>(&q), s[half]);
    return *reinterpret_cast<const uint32_t*>(&r);
  }
};
template <>
struct PairScale<__nv_bfloat16> {
  static constexpr float kFactor = 1;
  float2 s;
  __device__ __forceinline__ explicit PairScale(uint32_t pair) : s(scales_of(pair)) {}
  __device__ __forceinline__ uint32_t apply(uint32_t q, int half) const {
    const float2 v = device::unpack<__nv_bfloat16>(q);
    const float by = half == 0 ? s.x : s.y;
    return device::pack<__nv_bfloat16>(v.x * by, v.y * by);
  }
};

}  // namespace lorikeet::kernels::int4
