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
// kLoraNoSum is the highest of all numbers: in a tree, as a chain of comparisons takes three times as long.
template <int kCount>
__device__ __forceinline__ bool are_there(const uint4 (&bits)[kCount]) {
  static_assert(kLoraNoSum == 0xffffffff && (kCount & (kCount - 1)) == 0);
  uint32_t highest[kCount];
#pragma unroll
  for (int i = 0; i < kCount; i++) highest[i] = max(max(bits[i].x, bits[i].y), max(bits[i].z, bits[i].w));
#pragma unroll
  for (int half = kCount / 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < half; i++) highest[i] = max(highest[i], highest[i + half]);
  }
  return highest[0] != kLoraNoSum;
}

// The slices that a block may make: of the inputs that it keeps, beginning with unit first_unit. All blocks with the
// same slices deal them among themselves.
struct LoraShare {
  int first_unit;
  int begin, end;  // slices
  int index, count;
};

// Of a row of x in the order of the tensor cores, 32 inputs at `row`: pair t of each of its four pieces of 16 bytes in lane
// t, as operand A of two steps takes row 0. The other lanes get what they may.
__device__ __forceinline__ void load_row(uint32_t (&pairs)[4], uint32_t row) {
  const uint32_t piece = row + threadIdx.x % device::kWarpSize / 8 * 16;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(piece));
}

// A x of one slice: sums[0] and sums[1] are of ranks 2 t and 2 t + 1 in the lanes of row 0; the others have nothing of
// use. a: the shared address of this lane's part of A; x: that of the row of x.
template <class T>
__device__ __forceinline__ void sum_slice(uint32_t a, uint32_t x, int steps, float (&sums)[4]) {
  constexpr int kTogether = 4;  // steps whose operands are on their way
#pragma unroll
  for (int first = 0; first < lora::kSliceBlocks; first += kTogether) {
    if (first >= steps) break;
    uint4 weights[kTogether];
    uint32_t pairs[kTogether][4];
#pragma unroll
    for (int i = 0; i < kTogether; i++) {  // what lies behind the last step is read and not used
      weights[i] = load_shared_16(a + (first + i) * lora::kBlockBytes);
      load_row(pairs[i], x + (first + i) * 64);
    }
#pragma unroll
    for (int i = 0; i < kTogether; i++) {
      if (first + i >= steps) break;
      device::mma_m16n8k16<T>(sums, pairs[i][0], 0, pairs[i][1], 0, weights[i].x, weights[i].y);
      device::mma_m16n8k16<T>(sums, pairs[i][2], 0, pairs[i][3], 0, weights[i].z, weights[i].w);
    }
  }
}

// Forgets the sums of products that have ended. By `threads` threads of every block, of which this is number `thread`.
__device__ __forceinline__ void clear_slices(const DecodeLoraParams& p, int thread, int threads) {
  const uint4 none = make_uint4(kLoraNoSum, kLoraNoSum, kLoraNoSum, kLoraNoSum);
  const int step = static_cast<int>(gridDim.x) * threads;
#pragma unroll
  for (const auto& [from, vectors] : p.cleared) {
    for (int i = static_cast<int>(blockIdx.x) * threads + thread; i < vectors; i += step) {
      static_cast<uint4*>(from)[i] = none;
    }
  }
}

}  // namespace lorikeet::kernels::int4
