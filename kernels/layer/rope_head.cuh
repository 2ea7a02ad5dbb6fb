// What happens to one head of q, k or v between the product and attention. Included by .cu files only.
//
// Roundings are spelt out, so that a head has the same bits in every kernel that makes it.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/layer/rope_cuda.h"

namespace lorikeet::kernels::device {

template <class Kv>
inline constexpr bool kIsFp8 = sizeof(Kv) == 1;

template <class Kv>
__device__ __forceinline__ Kv to_kv(float x, float scale) {
  if constexpr (kIsFp8<Kv>) {
    Kv v;
    v.__x = to_fp8(__fdiv_rn(x, scale));
    return v;
  } else {
    return from_float<Kv>(x);
  }
}

// Where the key or value of a head lies that has the place `slot`: counts the cache's heads in their order.
__device__ __forceinline__ int64_t kv_place(const KvCacheLayer& layer, int kv_head, int slot) {
  const int block = slot / layer.block_size;
  const int offset = slot % layer.block_size;
  return (static_cast<int64_t>(block) * layer.kv_heads + kv_head) * layer.block_size + offset;
}

// Made by one warp, in three steps of which the first two only ask for memory, so that several heads' requests can be
// on their way together. Lane l holds elements first() + i of the lower half and their partners in the upper half.
template <class T, int kHeadDim>
class RopeHead {
 public:
  static constexpr int kPairs = kHeadDim / 2 / kWarpSize;
  static_assert(kPairs == 1 || kPairs == 2);

  static __device__ __forceinline__ int first() { return static_cast<int>(threadIdx.x) % kWarpSize * kPairs; }

  // `head` counts q heads, then k, then v. Reads what no kernel writes.
  __device__ __forceinline__ void load_weights(const RopeArgs& args, int head) {
    const float* norm = norm_of(args, head);
    if (args.bias != nullptr) load_floats(bias_, args.bias + head * kHeadDim + first());
    if (norm != nullptr) load_floats(norm_, norm + first());
  }

  __device__ __forceinline__ void load(const RopeArgs& args, int token, int head) {
    const T* source = static_cast<const T*>(args.qkv) +
                      (static_cast<size_t>(token) * (args.heads + 2 * args.cache.kv_heads) + head) * kHeadDim + first();
    const float2* cos_sin =
        reinterpret_cast<const float2*>(args.cos_sin) + static_cast<size_t>(token) * (kHeadDim / 2) + first();
    if constexpr (kPairs == 2) {
      raw_[0] = *reinterpret_cast<const uint32_t*>(source);
      raw_[1] = *reinterpret_cast<const uint32_t*>(source + kHeadDim / 2);
      const float4 turn = *reinterpret_cast<const float4*>(cos_sin);
      turn_[0] = make_float2(turn.x, turn.y), turn_[1] = make_float2(turn.z, turn.w);
    } else {
      raw_[0] = *reinterpret_cast<const uint16_t*>(source);
      raw_[1] = *reinterpret_cast<const uint16_t*>(source + kHeadDim / 2);
      turn_[0] = *cos_sin;
    }
    position_ = args.log_n_length > 0 ? args.positions[token] : 0;
  }

  __device__ __forceinline__ void make(const RopeArgs& args, int head) {
    const float2 lower = unpack<T>(raw_[0]), upper = unpack<T>(raw_[1]);
    x_[0] = lower.x, y_[0] = upper.x;
    if constexpr (kPairs == 2) x_[1] = lower.y, y_[1] = upper.y;
    if (args.bias != nullptr) {
#pragma unroll
      for (int i = 0; i < kPairs; i++) {
        x_[i] = __fadd_rn(x_[i], bias_[0][i]);
        y_[i] = __fadd_rn(y_[i], bias_[1][i]);
      }
    }
    if (norm_of(args, head) != nullptr) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kPairs; i++) squares = __fmaf_rn(x_[i], x_[i], __fmaf_rn(y_[i], y_[i], squares));
      const float factor = rsqrtf(__fmaf_rn(warp_sum(squares), 1.0F / kHeadDim, args.norm_epsilon));
#pragma unroll
      for (int i = 0; i < kPairs; i++) {
        x_[i] = __fmul_rn(x_[i], __fmul_rn(factor, norm_[0][i]));
        y_[i] = __fmul_rn(y_[i], __fmul_rn(factor, norm_[1][i]));
      }
    }
    if (head >= args.heads + args.cache.kv_heads) return;
    float scale = 1;
    if (head < args.heads && args.log_n_length > 0 && position_ + 1 > args.log_n_length) {
      scale = logf(static_cast<float>(position_ + 1)) / logf(static_cast<float>(args.log_n_length));
    }
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      const float2 c = turn_[i];
      const float rotated = __fmaf_rn(x_[i], c.x, -__fmul_rn(y_[i], c.y));
      y_[i] = __fmul_rn(__fmaf_rn(y_[i], c.x, __fmul_rn(x_[i], c.y)), scale);
      x_[i] = __fmul_rn(rotated, scale);
    }
  }

  template <class To>
  __device__ __forceinline__ void store(To* head, float scale = 1) const {
#pragma unroll
    for (int i = 0; i < kPairs; i++) {
      head[first() + i] = to_kv<To>(x_[i], scale);
      head[first() + i + kHeadDim / 2] = to_kv<To>(y_[i], scale);
    }
  }

  // Of a key or value head in a cache of Kv.
  template <class Kv>
  __device__ __forceinline__ float scale_of() const {
    if constexpr (!kIsFp8<Kv>) return 1;
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kPairs; i++) largest = fmaxf(largest, fmaxf(fabsf(x_[i]), fabsf(y_[i])));
    largest = fminf(warp_max(largest), 0x1.fffffep127F);
    return largest > 0 ? __fdiv_rn(largest, kLargestFp8) : 1.0F;
  }

  // Stores a key or value head in the place `slot` of its cache. scale: scale_of<Kv>().
  template <class Kv>
  __device__ __forceinline__ void store_kv(const KvCacheLayer& layer, bool value, int kv_head, int slot,
                                           float scale) const {
    store_kv_at<Kv>(layer, value, kv_place(layer, kv_head, slot), scale);
  }
  template <class Kv>
  __device__ __forceinline__ void store_kv_at(const KvCacheLayer& layer, bool value, int64_t place, float scale) const {
    store(static_cast<Kv*>(value ? layer.values : layer.keys) + place * kHeadDim, scale);
    if constexpr (kIsFp8<Kv>) {
      if (threadIdx.x % kWarpSize == 0) (value ? layer.value_scales : layer.key_scales)[place] = scale;
    }
  }

  // What a kernel that works in T would read of a head stored in a cache of Kv; of fp8 what is stored.
  template <class Kv, class Read>
  __device__ __forceinline__ void store_as_read(Read* head, float scale) const {
    if constexpr (kIsFp8<Kv>) {
      store(head, scale);
    } else {
#pragma unroll
      for (int i = 0; i < kPairs; i++) {
        head[first() + i] = from_float<T>(to_float(to_kv<Kv>(x_[i], scale)));
        head[first() + i + kHeadDim / 2] = from_float<T>(to_float(to_kv<Kv>(y_[i], scale)));
      }
    }
  }

 private:
  static __device__ __forceinline__ const float* norm_of(const RopeArgs& args, int head) {
    return head < args.heads ? args.q_norm : head < args.heads + args.cache.kv_heads ? args.k_norm : nullptr;
  }
  static __device__ __forceinline__ void load_floats(float (&to)[2][kPairs], const float* from) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if constexpr (kPairs == 2) {
        const float2 two = __ldg(reinterpret_cast<const float2*>(from + half * (kHeadDim / 2)));
        to[half][0] = two.x, to[half][1] = two.y;
      } else {
        to[half][0] = __ldg(from + half * (kHeadDim / 2));
      }
    }
  }

  uint32_t raw_[2];  // elements of the lower and the upper half as they were stored
  float x_[kPairs];  // lower half
  float y_[kPairs];  // upper half
  float2 turn_[kPairs];
  float bias_[2][kPairs] = {};
  float norm_[2][kPairs] = {};
  int position_ = 0;
};

}  // namespace lorikeet::kernels::device
