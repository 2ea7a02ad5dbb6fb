// How the decode attention joins results over disjoint positions. Included by attention_decode_cuda.cu.
//
// A result over some positions is, per query head, the largest score (times log2 e), the sum of 2^(score - largest) and
// the sum of 2^(score - largest) * value. Results are joined in one binary tree over a row's segments, wherever they
// lie: in registers, in shared memory of one or several blocks, or in global memory; always with these roundings. A
// result over no position changes nothing.
#pragma once

#include <cfloat>

#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::attention {

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float2 no_positions() {
  return make_float2(-FLT_MAX, 0);
}

struct Join {
  float first, second;  // factors

  // max_sum: of the first; becomes that of both.
  __device__ __forceinline__ Join(float2& max_sum, float2 next) {
    const float largest = fmaxf(max_sum.x, next.x);
    first = exp2_fast(max_sum.x - largest);
    second = exp2_fast(next.x - largest);
    max_sum = make_float2(largest, one(max_sum.y, next.y));
  }
  __device__ __forceinline__ float one(float a, float b) const { return __fmaf_rn(b, second, __fmul_rn(a, first)); }
  __device__ __forceinline__ float4 operator()(float4 a, float4 b) const {
    return make_float4(one(a.x, b.x), one(a.y, b.y), one(a.z, b.z), one(a.w, b.w));
  }
};

// Four neighbouring elements of a head's result.
struct Four {
  float2 max_sum;
  float4 values;

  __device__ __forceinline__ void join(const Four& next) {
    const Join factors(max_sum, next.max_sum);
    values = factors(values, next.values);
  }
  // Joins with the result of the lane `distance` (a power of two) away, in the order of the lanes.
  __device__ __forceinline__ void join_lane(int distance) {
    Four other;
    other.max_sum.x = __shfl_xor_sync(device::kFullWarp, max_sum.x, distance);
    other.max_sum.y = __shfl_xor_sync(device::kFullWarp, max_sum.y, distance);
    other.values.x = __shfl_xor_sync(device::kFullWarp, values.x, distance);
    other.values.y = __shfl_xor_sync(device::kFullWarp, values.y, distance);
    other.values.z = __shfl_xor_sync(device::kFullWarp, values.z, distance);
    other.values.w = __shfl_xor_sync(device::kFullWarp, values.w, distance);
    if ((threadIdx.x & distance) != 0) {
      const Four mine = *this;
      *this = other;
      other = mine;
    }
    join(other);
  }
  template <class T>
  __device__ __forceinline__ void store(T* out) const {
    *reinterpret_cast<uint2*>(out) = make_uint2(device::pack<T>(values.x / max_sum.y, values.y / max_sum.y),
                                                device::pack<T>(values.z / max_sum.y, values.w / max_sum.y));
  }
};

// One element of a head's result.
struct One {
  float2 max_sum;
  float value;

  __device__ __forceinline__ void join(const One& next) {
    const Join factors(max_sum, next.max_sum);
    value = factors.one(value, next.value);
  }
};

// Joins kLeaves results (a power of two) into the first of them.
template <class Part, int kLeaves>
__device__ __forceinline__ void join_tree(Part (&leaves)[kLeaves]) {
#pragma unroll
  for (int step = 1; step < kLeaves; step *= 2) {
#pragma unroll
    for (int i = 0; i < kLeaves; i += 2 * step) leaves[i].join(leaves[i + step]);
  }
}

// Joins `count` results (a power of two, at most 256) of each of so many fours: `load(result, four)` gives a Four and
// `store(four, joined)` takes it. Called by all kThreads threads of a block; neighbouring lanes share a four.
template <int kThreads, class Load, class Store>
__device__ __forceinline__ void join_leaves(int count, int fours, const Load& load, const Store& store) {
  constexpr int kLeaves = 8;  // of a lane: neighbours, and neighbouring lanes have the next
  const int lanes = max(1, count / kLeaves);
  const int first_leaf = static_cast<int>(threadIdx.x) % lanes * kLeaves;
#pragma unroll 1
  for (int begin = 0; begin < fours; begin += kThreads / lanes) {
    const int four = begin + static_cast<int>(threadIdx.x) / lanes;
    Four leaves[kLeaves];
#pragma unroll
    for (int i = 0; i < kLeaves; i++) {
      leaves[i] = Four{no_positions(), make_float4(0, 0, 0, 0)};
      if (first_leaf + i < count) leaves[i] = load(first_leaf + i, min(four, fours - 1));
    }
    join_tree(leaves);
#pragma unroll 1
    for (int distance = 1; distance < lanes; distance *= 2) leaves[0].join_lane(distance);
    if (four < fours && first_leaf == 0) store(four, leaves[0]);
  }
}

// One warp's result for 8 heads, as its tensor-core steps leave it: of heads 2t, 2t + 1 (t = lane % 4).
template <int kRowTiles>
struct WarpResult {
  float largest[2];  // the same in all lanes of equal t, and so is `sum`
  float sum[2];
  float out[kRowTiles][4];  // out^T

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      largest[h] = no_positions().x;
      sum[h] = 0;
    }
#pragma unroll
    for (int s = 0; s < kRowTiles; s++) {
#pragma unroll
      for (int e = 0; e < 4; e++) out[s][e] = 0;
    }
  }
  // Becomes what `before` and this are together.
  __device__ __forceinline__ void join_behind(const WarpResult& before) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float2 max_sum = make_float2(before.largest[h], before.sum[h]);
      const Join factors(max_sum, make_float2(largest[h], sum[h]));
      largest[h] = max_sum.x;
      sum[h] = max_sum.y;
#pragma unroll
      for (int s = 0; s < kRowTiles; s++) {
        out[s][h] = factors.one(before.out[s][h], out[s][h]);
        out[s][h + 2] = factors.one(before.out[s][h + 2], out[s][h + 2]);
      }
    }
  }
};

}  // namespace lorikeet::kernels::attention
