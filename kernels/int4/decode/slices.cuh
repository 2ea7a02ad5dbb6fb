// A x of one token in the int4 product (kernels/int4/decode/lora_token.cuh). Included by it.
#pragma once

#include "kernels/cuda/poll_bound.cuh"
#include "kernels/int4/base/fragment.cuh"
#include "kernels/int4/decode/chunk.cuh"
#include "kernels/int4/decode/lora_shared.cuh"

namespace lorikeet::kernels::int4 {

// Sums of slices go from block to block through memory in which every number is kLoraNoSum until its sum is there: no
// sum has these bits.
__device__ __forceinline__ void store_slice(float* to, float low, float high) {
  const auto bits = [](float x) {
    const uint32_t as_stored = __float_as_uint(x);
    return as_stored == kLoraNoSum ? 0x7fffffffU : as_stored;
  };
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(to), "r"(bits(low)), "r"(bits(high)) : "memory");
}
// Four neighbours at once.
__device__ __forceinline__ uint4 load_slices(const float* from) {
  uint4 bits;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "l"(from)
               : "memory");
  return bits;
}
__device__ __forceinline__ bool is_there(const uint4& bits) {
  return bits.x != kLoraNoSum && bits.y != kLoraNoSum && bits.z != kLoraNoSum && bits.w != kLoraNoSum;
}

// The slices that a block may make: of the inputs that it keeps, beginning with unit first_unit. All blocks with the
// same slices deal them among themselves.
struct LoraShare {
  int first_unit;
  int begin, end;  // slices
  int index, count;
};

// A x of one slice, of rows of x in the order of the tensor cores; a lane without a row brings zeros. sums[0] and
// sums[1] are of row g and ranks 2 t and 2 t + 1. a, x: shared addresses of this lane's parts.
template <class T>
__device__ __forceinline__ void sum_slice(uint32_t a, uint32_t x, int steps, bool has_row, float (&sums)[4]) {
#pragma unroll 4
  for (int i = 0; i < steps; i++, a += lora::kBlockBytes, x += 64) {
    const uint4 weights = load_shared_16(a);
    uint32_t pairs[4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(pairs[q]) : "r"(x + q * 16));
      if (!has_row) pairs[q] = 0;
    }
    device::mma_m16n8k16<T>(sums, pairs[0], 0, pairs[1], 0, weights.x, weights.y);
    device::mma_m16n8k16<T>(sums, pairs[2], 0, pairs[3], 0, weights.z, weights.w);
  }
}

// Forgets the sums of products that have ended. By the first kThreads threads of every block.
template <int kThreads>
__device__ __forceinline__ void clear_slices(const DecodeLoraParams& p) {
  const int thread = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const uint4 none = make_uint4(kLoraNoSum, kLoraNoSum, kLoraNoSum, kLoraNoSum);
#pragma unroll
  for (const auto& [from, vectors] : p.cleared) {
    for (int i = thread; i < vectors; i += static_cast<int>(gridDim.x) * kThreads) static_cast<uint4*>(from)[i] = none;
  }
}

}  // namespace lorikeet::kernels::int4
