// Eight neighbouring outputs of a row, as LoRA's expand takes and leaves them. Included by .cu files only.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::lora {

inline constexpr int kLaneOutputs = 8;

// Eight elements as they are stored.
template <class Y>
struct Octet {
  static constexpr int kVectors = kLaneOutputs * sizeof(Y) / sizeof(uint4);
  uint32_t words[4 * kVectors];

  // Elements 2 i and 2 i + 1.
  __device__ __forceinline__ float2 pair(int i) const {
    if constexpr (sizeof(Y) == 4) {
      return make_float2(__uint_as_float(words[2 * i]), __uint_as_float(words[2 * i + 1]));
    } else {
      return device::unpack<Y>(words[i]);
    }
  }
  __device__ __forceinline__ void set_pair(int i, float low, float high) {
    if constexpr (sizeof(Y) == 4) {
      words[2 * i] = __float_as_uint(low);
      words[2 * i + 1] = __float_as_uint(high);
    } else {
      words[i] = device::pack<Y>(low, high);
    }
  }
  __device__ __forceinline__ void set_vector(int i, const uint4& four) {
    words[4 * i] = four.x;
    words[4 * i + 1] = four.y;
    words[4 * i + 2] = four.z;
    words[4 * i + 3] = four.w;
  }
  __device__ __forceinline__ uint4 vector(int i) const {
    return make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
  }

  // One by one, where eight are not one access or fewer than eight exist: elements behind `count` are 0.
  __device__ __forceinline__ void load_single(const Y* from, int count) {
#pragma unroll
    for (int i = 0; i < kLaneOutputs; i += 2) {
      set_pair(i / 2, i < count ? device::to_float(from[i]) : 0.0F,
               i + 1 < count ? device::to_float(from[i + 1]) : 0.0F);
    }
  }
  __device__ __forceinline__ void store(Y* to, int count, bool vectors) const {
    if (vectors && count >= kLaneOutputs) {
#pragma unroll
      for (int i = 0; i < kVectors; i++) reinterpret_cast<uint4*>(to)[i] = vector(i);
      return;
    }
#pragma unroll
    for (int i = 0; i < kLaneOutputs; i++) {
      const float2 two = pair(i / 2);
      if (i < count) to[i] = device::from_float<Y>(i % 2 == 0 ? two.x : two.y);
    }
  }
};

// gates = silu(gates) * ups. The quotient's steps are those that a division takes for numbers of moderate size, where
// they round correctly; it would branch behind every one of them. Other numbers take the division.
template <int kCount>
__device__ __forceinline__ void multiply_silu(float* gates, const float* ups) {
  constexpr float kLargest = 0x1p60F;
  constexpr float kSmallest = 0x1p-40F;
  float divisors[kCount], quotients[kCount];
  bool moderate = true;
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    const float gate = gates[i];
    const float divisor = 1.0F + __expf(-gate);
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(divisor));
    reciprocal = __fmaf_rn(reciprocal, __fmaf_rn(-divisor, reciprocal, 1.0F), reciprocal);
    const float quotient = __fmul_rn(reciprocal, gate);
    quotients[i] = __fmaf_rn(reciprocal, __fmaf_rn(-divisor, quotient, gate), quotient);
    divisors[i] = divisor;
    moderate = moderate && fabsf(gate) >= kSmallest && fabsf(gate) <= kLargest && divisor <= kLargest;
  }
  if (!moderate) {
#pragma unroll
    for (int i = 0; i < kCount; i++) quotients[i] = __fdiv_rn(gates[i], divisors[i]);
  }
#pragma unroll
  for (int i = 0; i < kCount; i++) gates[i] = quotients[i] * ups[i];
}

}  // namespace lorikeet::kernels::lora
