// RMSNorm of a row by a block of kNormThreads threads: the steps that all kernels share, so that a row has the same
// bits in each of them. Definition: transformers, Qwen2RMSNorm. Included by .cu files only.
//
// Thread t has the vectors of kNormVector columns t, t + kNormThreads, ...; it sums its squares in that order, lanes
// are added next, then warps in order.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::device {

inline constexpr int kNormThreads = 512;
inline constexpr int kNormWarps = kNormThreads / kWarpSize;
inline constexpr int kNormVector = 4;  // columns of one 16-byte load of floats

__device__ __forceinline__ int norm_column(int v, int thread) {
  return (v * kNormThreads + thread) * kNormVector;
}

// The residual stream after `delta`, four columns of T.
template <class T>
__device__ __forceinline__ float4 add_delta(float4 residual, uint2 delta) {
  const float2 low = unpack<T>(delta.x);
  const float2 high = unpack<T>(delta.y);
  return make_float4(residual.x + low.x, residual.y + low.y, residual.z + high.x, residual.w + high.y);
}

__device__ __forceinline__ float add_squares(float sum, float4 x) {
  return fmaf(x.w, x.w, fmaf(x.z, x.z, fmaf(x.y, x.y, fmaf(x.x, x.x, sum))));
}

// The factor of a row of which the warps' sums are in shared memory.
__device__ __forceinline__ float norm_factor(const float* of_warp, int width, float epsilon) {
  float total = 0;
#pragma unroll
  for (int w = 0; w < kNormWarps; w++) total += of_warp[w];
  return rsqrtf(total / static_cast<float>(width) + epsilon);
}

template <class T>
__device__ __forceinline__ uint2 normed(float4 x, float factor, float4 weight) {
  return make_uint2(pack<T>(x.x * factor * weight.x, x.y * factor * weight.y),
                    pack<T>(x.z * factor * weight.z, x.w * factor * weight.w));
}

}  // namespace lorikeet::kernels::device
