// The steps of B v and of what becomes of it, which every kernel that adds an adapter's part to an output takes, so
// that the output has the same bits whichever of them made it. Included by .cu files only.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"

namespace lorikeet::kernels::lora {

__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
  return result;
}

// d[16 x 8] += a[16 x 8] * b[8 x 8] (PTX ISA, "Matrix fragments for mma.m16n8k8", .tf32). Which k is which does not
// matter as long as a and b agree: a lane has k = 2 t in a0, a1, b0 and k = 2 t + 1 in a2, a3, b1.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// v of 16 rows and 8 ranks as operand A: every float the sum of two tf32 numbers.
struct RankTile {
  uint32_t main[4];
  uint32_t rest[4];
};

// With g = lane / 4 and t = lane % 4, low: of row g, high: of row g + 8, both ranks 2 t and 2 t + 1.
__device__ __forceinline__ RankTile split_rank_tile(float2 low, float2 high) {
  const float values[4] = {low.x, high.x, low.y, high.y};
  RankTile v;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v.main[i] = to_tf32(values[i]);
    v.rest[i] = to_tf32(values[i] - __uint_as_float(v.main[i]));
  }
  return v;
}

// sums[16 rows x 32 outputs] += v times one block of B (kernels/lora/lora_layout.h): sums[i][e] is of row g + e / 2 * 8
// and output 8 t + 2 i + e % 2. B as one tf32 number holds fp16 and bf16 exactly.
template <class T>
__device__ __forceinline__ void add_rank_tile(float (&sums)[4][4], const RankTile& v, const uint4& block) {
  const uint32_t words[4] = {block.x, block.y, block.z, block.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 b = device::unpack<T>(words[i]);
    mma_tf32(sums[i], v.rest, __float_as_uint(b.x), __float_as_uint(b.y));
    mma_tf32(sums[i], v.main, __float_as_uint(b.x), __float_as_uint(b.y));
  }
}

// The parts of one element of v, added in their order.
__device__ __forceinline__ float sum_parts(const float* v, int64_t stride, int parts) {
  constexpr int kTogether = 8;  // loads on their way
  float sum = 0;
  for (int first = 0; first < parts; first += kTogether) {
    float values[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; i++) values[i] = first + i < parts ? v[(first + i) * stride] : 0.0F;
#pragma unroll
    for (int i = 0; i < kTogether; i++) sum += values[i];
  }
  return sum;
}

// W x + scale * B v, rounded once: not left to the compiler, which may or may not make one operation of it. DoRA's
// factor follows.
__device__ __forceinline__ float completed(float base, float scale, float sum) {
  return __fmaf_rn(scale, sum, base);
}

}  // namespace lorikeet::kernels::lora
