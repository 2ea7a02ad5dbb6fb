// What happens to one head of q, k or v between the product and attention. Included by .cu files only.
//
// Roundings are spelt out, so that a head has the same bits in every kernel that makes it.
#pragma once

#include "kernels/device_math.cuh"
#include "kernels/rope_cuda.h"

namespace lorikeet::kernels::device {

template <class Kv>
__device__ __forceinline__ Kv to_kv(float x) {
  if constexpr (sizeof(Kv) == 1) {
    Kv v;
    v.__x = to_fp8(x);
    return v;
  } else {
    return from_float<Kv>(x);
  }
}

// Made by one warp. Lane l holds elements first() + i of the lower half (x) and their partners in the upper half (y).
template <class T, int kHeadDim>
struct RopeHead {
  static constexpr int kPairs = kHeadDim / 2 / kWarpSize;
  float x[kPairs];
  float y[kPairs];

  static __device__ __forceinline__ int first() { return static_cast<int>(threadIdx.x) % kWarpSize * kPairs; }

  // `head` counts q heads, then k, then v.
  __device__ __forceinline__ RopeHead(const RopeArgs& args, int token, int head) {
    const int kv_heads = args.cache.kv_heads;
    const bool is_q = head < args.heads;
    const bool is_v = head >= args.heads + kv_heads;
    const T* source = static_cast<const T*>(args.qkv) +
                      (static_cast<size_t>(token) * (args.heads + 2 * kv_heads) + head) * kHeadDim + first();
    const float* norm = is_v ? nullptr : is_q ? args.q_norm : args.k_norm;
    const float2* cos_sin =
        reinterpret_cast<const float2*>(args.cos_sin) + static_cast<size_t>(token) * (kHeadDim / 2) + first();
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      x[i] = to_float(source[i]);
      y[i] = to_float(source[i + kHeadDim / 2]);
      if (args.bias != nullptr) {
        x[i] = __fadd_rn(x[i], args.bias[head * kHeadDim + first() + i]);
        y[i] = __fadd_rn(y[i], args.bias[head * kHeadDim + first() + i + kHeadDim / 2]);
      }
    }
    if (norm != nullptr) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kPairs; i++) squares = __fmaf_rn(x[i], x[i], __fmaf_rn(y[i], y[i], squares));
      const float factor = rsqrtf(__fmaf_rn(warp_sum(squares), 1.0F / kHeadDim, args.norm_epsilon));
#pragma unroll
      for (int i = 0; i < kPairs; i++) {
        x[i] = __fmul_rn(x[i], __fmul_rn(factor, norm[first() + i]));
        y[i] = __fmul_rn(y[i], __fmul_rn(factor, norm[first() + i + kHeadDim / 2]));
      }
    }
    if (is_v) return;
    float scale = 1;
    if (is_q && args.log_n_length > 0 && args.positions[token] + 1 > args.log_n_length) {
      scale = logf(static_cast<float>(args.positions[token] + 1)) / logf(static_cast<float>(args.log_n_length));
    }
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      const float2 c = cos_sin[i];
      const float rotated = __fmaf_rn(x[i], c.x, -__fmul_rn(y[i], c.y));
      y[i] = __fmul_rn(__fmaf_rn(y[i], c.x, __fmul_rn(x[i], c.y)), scale);
      x[i] = __fmul_rn(rotated, scale);
    }
  }

  template <class To>
  __device__ __forceinline__ void store(To* head) const {
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      head[first() + i] = to_kv<To>(x[i]);
      head[first() + i + kHeadDim / 2] = to_kv<To>(y[i]);
    }
  }
};

// Stores a key or value head in the place `slot` of its cache.
template <class Kv, class T, int kHeadDim>
__device__ __forceinline__ void store_kv(const RopeHead<T, kHeadDim>& head, void* cache, const KvCacheLayer& layer,
                                         int kv_head, int slot) {
  const int block = slot / layer.block_size;
  const int offset = slot % layer.block_size;
  head.store(static_cast<Kv*>(cache) +
             ((static_cast<size_t>(block) * layer.kv_heads + kv_head) * layer.block_size + offset) * kHeadDim);
}

}  // namespace lorikeet::kernels::device
