// Vectors of 32 bytes and 8 floats as pairs of NEON's registers, with ARM's DotProd where this is compiled for it. For
// int8_product_simd.cc. All is in the order of int8_vectors_avx2.h, so that the results have the same bits.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {
namespace {

#define LORIKEET_INLINE __attribute__((always_inline)) static inline

struct ByteVectors {
  struct Bytes {
    uint8x16_t a, b;
  };
  struct Floats {
    float32x4_t a, b;
  };

  LORIKEET_INLINE Bytes load(const void* p) {
    const auto* bytes = static_cast<const uint8_t*>(p);
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16)};
  }
  LORIKEET_INLINE Bytes low(Bytes v) { return {vandq_u8(v.a, vdupq_n_u8(15)), vandq_u8(v.b, vdupq_n_u8(15))}; }
  LORIKEET_INLINE Bytes high(Bytes v) { return {vshrq_n_u8(v.a, 4), vshrq_n_u8(v.b, 4)}; }
  // Of every 16 bytes of v and w the first 8, or the last 8.
  LORIKEET_INLINE Bytes even_eights(Bytes v, Bytes w) { return {first_eights(v.a, w.a), first_eights(v.b, w.b)}; }
  LORIKEET_INLINE Bytes odd_eights(Bytes v, Bytes w) { return {last_eights(v.a, w.a), last_eights(v.b, w.b)}; }
  LORIKEET_INLINE uint8x16_t first_eights(uint8x16_t v, uint8x16_t w) {
    return vcombine_u8(vget_low_u8(v), vget_low_u8(w));
  }
  LORIKEET_INLINE uint8x16_t last_eights(uint8x16_t v, uint8x16_t w) {
    return vcombine_u8(vget_high_u8(v), vget_high_u8(w));
  }
  // The low nibbles of 16 bytes, and their high ones behind them.
  LORIKEET_INLINE Bytes low_then_high(const uint8_t* q) {
    const uint8x16_t bytes = vld1q_u8(q);
    return {vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8(bytes, 4)};
  }

  LORIKEET_INLINE int8x16_t as_signed(uint8x16_t v) { return vreinterpretq_s8_u8(v); }
#if defined(__ARM_FEATURE_DOTPROD)
  static constexpr IntegerDot kDot = IntegerDot::neon_dotprod;

  // Of products of bytes, for 8 lanes.
  struct Sums {
    int32x4_t a, b;
  };
  LORIKEET_INLINE Sums no_sums() {
    return {vdupq_n_s32(0), vdupq_n_s32(0)};
  }
  LORIKEET_INLINE Sums add_products(Sums sums, Bytes nibbles, Bytes bytes) {
    return {vdotq_s32(sums.a, as_signed(nibbles.a), as_signed(bytes.a)),
            vdotq_s32(sums.b, as_signed(nibbles.b), as_signed(bytes.b))};
  }
  LORIKEET_INLINE Floats to_floats(Sums sums) {
    return {vcvtq_f32_s32(sums.a), vcvtq_f32_s32(sums.b)};
  }
#else
  static constexpr IntegerDot kDot = IntegerDot::neon;

  // Of products of bytes. Nibbles are at most 15 and the others 127: even those of the pairs of four vectors fit into 16
  // bits.
  struct Sums {
    int16x8_t a_low, a_high, b_low, b_high;
  };
  LORIKEET_INLINE Sums no_sums() {
    return {vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0)};
  }
  LORIKEET_INLINE Sums add_products(Sums sums, Bytes nibbles, Bytes bytes) {
    const int8x16_t n = as_signed(nibbles.a), m = as_signed(nibbles.b);
    const int8x16_t x = as_signed(bytes.a), y = as_signed(bytes.b);
    return {vmlal_s8(sums.a_low, vget_low_s8(n), vget_low_s8(x)), vmlal_high_s8(sums.a_high, n, x),
            vmlal_s8(sums.b_low, vget_low_s8(m), vget_low_s8(y)), vmlal_high_s8(sums.b_high, m, y)};
  }
  LORIKEET_INLINE Floats to_floats(Sums sums) {
    return {vcvtq_f32_s32(vpaddlq_s16(vpaddq_s16(sums.a_low, sums.a_high))),
            vcvtq_f32_s32(vpaddlq_s16(vpaddq_s16(sums.b_low, sums.b_high)))};
  }
#endif

  LORIKEET_INLINE Floats zero() {
    return {vdupq_n_f32(0), vdupq_n_f32(0)};
  }
  LORIKEET_INLINE Floats set(float x) {
    return {vdupq_n_f32(x), vdupq_n_f32(x)};
  }
  LORIKEET_INLINE Floats load_floats(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4)};
  }
  LORIKEET_INLINE Floats mul(Floats v, Floats w) {
    return {vmulq_f32(v.a, w.a), vmulq_f32(v.b, w.b)};
  }
  LORIKEET_INLINE Floats fma(Floats v, Floats w, Floats to) {
    return {vfmaq_f32(to.a, v.a, w.a), vfmaq_f32(to.b, v.b, w.b)};
  }
  LORIKEET_INLINE float sum(Floats v) {
    const float32x4_t four = vaddq_f32(v.a, v.b);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
};

#undef LORIKEET_INLINE

}  // namespace
}  // namespace lorikeet::kernels
