// The vector type of NEON, which every 64-bit ARM has, for the files of kernels/cpu/simd.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace lorikeet::kernels {
namespace {

struct Neon {
  using F = float32x4_t;
  static constexpr int kLanes = 4;

  // Tiles that fit into 32 registers.
  static constexpr int kGemvOutputs = 8;       // where there is one row
  static constexpr int kWordsInRegisters = 8;  // of outputs, beside a tile's sums
  static constexpr int kTileOutputs = 4, kTileRows = 4;
  static constexpr int kScoreVectors = 4, kValueVectors = 4;

  static F zero() { return vdupq_n_f32(0); }
  static F set(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F v) { vst1q_f32(p, v); }
  static uint32x4_t first(int64_t count) {
    constexpr int32_t kNumbers[] = {0, 1, 2, 3};
    return vcgtq_s32(vdupq_n_s32(static_cast<int32_t>(count)), vld1q_s32(kNumbers));
  }
  // There are no masked loads and stores: lane by lane.
  static F load_first(const float* p, int64_t count) {
    if (count >= kLanes) return load(p);
    F v = zero();
    if (count > 0) v = vld1q_lane_f32(p, v, 0);
    if (count > 1) v = vld1q_lane_f32(p + 1, v, 1);
    if (count > 2) v = vld1q_lane_f32(p + 2, v, 2);
    return v;
  }
  static void store_first(float* p, F v, int64_t count) {
    if (count >= kLanes) return store(p, v);
    if (count > 0) vst1q_lane_f32(p, v, 0);
    if (count > 1) vst1q_lane_f32(p + 1, v, 1);
    if (count > 2) vst1q_lane_f32(p + 2, v, 2);
  }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  static F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // b where either is not a number
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  // The first `count` lanes of v, and `other` in the rest.
  static F keep_first(F v, int64_t count, F other) { return vbslq_f32(first(count), v, other); }
  static float sum(F v) { return vaddvq_f32(v); }
  static float largest(F v) { return vmaxvq_f32(v); }

  static F load_half(const unsigned char* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
  static void store_half(unsigned char* p, F v) { vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(v))); }
  static F load_bf16(const unsigned char* p) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vreinterpret_u16_u8(vld1_u8(p))), 16));
  }

  static F round(F x) { return vrndnq_f32(x); }
  // x * 2^n for x near 1 and n in [-126, 128], in two steps as 2^128 is no number.
  static F scale_by_power(F x, F n) {
    const int32x4_t whole = vcvtnq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(whole, 1);
    return mul(mul(x, power(half)), power(vsubq_s32(whole, half)));
  }
  static F power(int32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
  static F zero_below(F x, F limit, F value) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), vcltq_f32(x, limit)));
  }

  // Of a prepared row behind its inputs, for each run: minus the sums of the inputs.
  static constexpr int kFloatsOfRun = kLanes;
  static F begin_run(F zero_point, const float* behind) { return mul(zero_point, load(behind)); }

  // The nibbles of a block of 32 inputs, and vector number S of them in nibble order as floats: the conversion divides by
  // 16^S on its way.
  template <int B>
  struct Nibbles {
    static_assert(B == 8 * kLanes);
    uint32x4_t words;
    explicit Nibbles(const uint8_t* q) : words(vreinterpretq_u32_u8(vld1q_u8(q))) {}
    template <int S>
    F weights() const {
      const uint32x4_t in_place = vandq_u32(words, vdupq_n_u32(15U << 4 * S));
      if constexpr (S == 0) {
        return vcvtq_f32_u32(in_place);
      } else {
        return vcvtq_n_f32_u32(in_place, 4 * S);
      }
    }
  };
};

}  // namespace
}  // namespace lorikeet::kernels
