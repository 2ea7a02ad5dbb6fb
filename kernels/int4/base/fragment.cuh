// Int4 weights in the registers of the tensor cores: q - z, exact in fp16 and bf16, as operand A of m16n8k16 (and of
// the 64-row steps of Hopper, whose warps hold the same fragments). Included by .cu files only.
//
// Every product of up to kInt4DecodeRows tokens is built from these steps in the same order, so that all kernels give
// an output the same bits: a unit's tensor-core steps in the order of k, starting from 0; then part += scale * unit in
// the order of k; then the kPartsOfK parts in the order of k.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/int4/base/layout.h"

namespace lorikeet::kernels::int4 {

// How scales and zeros lie in a unit.
template <int kScaleBlockOf, bool kAsymmetricOf>
struct UnitFormat {
  static constexpr int kScaleBlock = kScaleBlockOf;  // inputs of a scale
  static constexpr bool kAsymmetric = kAsymmetricOf;
  static constexpr int kBytes = unit_bytes(kScaleBlock, kAsymmetric);
};

// f(UnitFormat{}) for the format known at run time.
template <class F>
auto with_format(int32_t scale_block, bool asymmetric, F&& f) {
  if (scale_block == kUnitInputs) {
    return asymmetric ? f(UnitFormat<kUnitInputs, true>{}) : f(UnitFormat<kUnitInputs, false>{});
  }
  return asymmetric ? f(UnitFormat<kSubBlock, true>{}) : f(UnitFormat<kSubBlock, false>{});
}

// Subtracted from nibbles that lie in the low mantissa bits of a 16-bit float: a pair of equal values per output half
// (g, g + 8). fp16: 1024 + z, and 64 + z for nibbles that lie 4 bits higher. bf16: 128 + z.
template <class T>
struct Zeros;

template <>
struct Zeros<__half> {
  uint32_t low[2], negated_high[2];
  __device__ __forceinline__ Zeros(uint32_t zero0, uint32_t zero1) {
    low[0] = 0x64006400U | zero0 * 0x10001U;
    low[1] = 0x64006400U | zero1 * 0x10001U;
    negated_high[0] = 0xd400d400U | zero0 * 0x100010U;
    negated_high[1] = 0xd400d400U | zero1 * 0x100010U;
  }
};
template <>
struct Zeros<__nv_bfloat16> {
  uint32_t low[2];
  __device__ __forceinline__ Zeros(uint32_t zero0, uint32_t zero1) {
    low[0] = 0x43004300U | zero0 * 0x10001U;
    low[1] = 0x43004300U | zero1 * 0x10001U;
  }
};

// z of outputs g and g + 8 for scale `index` of a unit: as stored, in one word; and ready for use.
template <class Format>
__device__ __forceinline__ uint32_t load_zero_pair(const unsigned char* unit, int index, int g) {
  if constexpr (!Format::kAsymmetric) return 0;
  const auto pairs = reinterpret_cast<const uint16_t*>(unit + kNibbleBytes + scale_bytes(Format::kScaleBlock));
  return pairs[index * 8 + g];
}
template <class T, class Format>
__device__ __forceinline__ Zeros<T> zeros_of(uint32_t pair) {
  if constexpr (Format::kAsymmetric) return Zeros<T>(pair & 0xff, pair >> 8);
  return Zeros<T>(8, 8);
}
template <class T, class Format>
__device__ __forceinline__ Zeros<T> load_zeros(const unsigned char* unit, int index, int g) {
  return zeros_of<T, Format>(load_zero_pair<Format>(unit, index, g));
}

// (word & mask) | bits in one instruction, which the compiler does not find where both are constants.
__device__ __forceinline__ uint32_t and_or(uint32_t word, uint32_t mask, uint32_t bits) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(word), "r"(mask), "r"(bits));
  return r;
}

__device__ __forceinline__ uint32_t subtract_pair(uint32_t a, uint32_t b, __half) {
  const __half2 r = __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&r);
}
__device__ __forceinline__ uint32_t subtract_pair(uint32_t a, uint32_t b, __nv_bfloat16) {
  const __nv_bfloat162 r =
      __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&r);
}

// The pairs of `word` for the lower (a[0]) and upper 16 inputs (a[1]) of a sub-block; of output g + 8 with half 1.
template <class T>
__device__ __forceinline__ void decode_pairs(uint32_t word, const Zeros<T>& zeros, int half, uint32_t& lower,
                                             uint32_t& upper);
template <>
__device__ __forceinline__ void decode_pairs<__half>(uint32_t word, const Zeros<__half>& zeros, int half,
                                                     uint32_t& lower, uint32_t& upper) {
  lower = subtract_pair(and_or(word, 0x000f000fU, 0x64006400U), zeros.low[half], __half());
  const uint32_t high = and_or(word, 0x00f000f0U, 0x64006400U);
  const __half2 r = __hfma2(*reinterpret_cast<const __half2*>(&high), __float2half2_rn(0.0625F),
                            *reinterpret_cast<const __half2*>(&zeros.negated_high[half]));
  upper = *reinterpret_cast<const uint32_t*>(&r);
}
template <>
__device__ __forceinline__ void decode_pairs<__nv_bfloat16>(uint32_t word, const Zeros<__nv_bfloat16>& zeros, int half,
                                                            uint32_t& lower, uint32_t& upper) {
  lower = subtract_pair(and_or(word, 0x000f000fU, 0x43004300U), zeros.low[half], __nv_bfloat16());
  upper = subtract_pair(and_or(word >> 4, 0x000f000fU, 0x43004300U), zeros.low[half], __nv_bfloat16());
}

// a[s]: operand A of the s-th 16 inputs of a sub-block, from a lane's two words.
template <class T>
__device__ __forceinline__ void decode_sub_block(uint32_t word0, uint32_t word1, const Zeros<T>& zeros,
                                                 uint32_t (&a)[2][4]) {
  decode_pairs<T>(word0, zeros, 0, a[0][0], a[1][0]);
  decode_pairs<T>(word0 >> 8, zeros, 1, a[0][1], a[1][1]);
  decode_pairs<T>(word1, zeros, 0, a[0][2], a[1][2]);
  decode_pairs<T>(word1 >> 8, zeros, 1, a[0][3], a[1][3]);
}

// The scales of outputs g and g + 8.
__device__ __forceinline__ float2 scales_of(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
__device__ __forceinline__ float2 load_scales(const unsigned char* unit, int index, int g) {
  return __half22float2(reinterpret_cast<const __half2*>(unit + kNibbleBytes)[index * 8 + g]);
}

__device__ __forceinline__ void add_scaled(float (&sum)[4], float2 scale, const float (&unit)[4]) {
  sum[0] = fmaf(scale.x, unit[0], sum[0]);
  sum[1] = fmaf(scale.x, unit[1], sum[1]);
  sum[2] = fmaf(scale.y, unit[2], sum[2]);
  sum[3] = fmaf(scale.y, unit[3], sum[3]);
}

// d = a * b and d += a * b (see mma_m16n8k16 in kernels/cuda/device_math.cuh). Unlike that they are not volatile: the
// compiler may move them among the loads and the decoding of what follows.
template <class T>
__device__ __forceinline__ void first_step(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (__is_same(T, __half)) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0F));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0F));
  }
}
template <class T>
__device__ __forceinline__ void next_step(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (__is_same(T, __half)) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

__device__ __forceinline__ uint4 load_shared_16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

}  // namespace lorikeet::kernels::int4
