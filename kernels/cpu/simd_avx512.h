// The vector type of AVX-512, for files compiled with it (kernels/cpu/simd.h): everything here is local to a file, so
// that no code with AVX-512 in it is ever shared with files for machines that lack it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lorikeet::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kLanes = 16;

  // Tiles that fit into 32 registers.
  static constexpr int kGemvOutputs = 8;  // where there is one row
  static constexpr int kTileOutputs = 4, kTileRows = 4;
  static constexpr int kScoreVectors = 4, kValueVectors = 4;

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static __mmask16 first(int64_t count) { return static_cast<__mmask16>((1U << count) - 1); }
  static F load_first(const float* p, int64_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
  static void store_first(float* p, F v, int64_t count) { _mm512_mask_storeu_ps(p, first(count), v); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where either is not a number
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  // The first `count` lanes of v, and `other` in the rest.
  static F keep_first(F v, int64_t count, F other) {
    if (count >= kLanes) return v;
    return count <= 0 ? other : _mm512_mask_blend_ps(first(count), other, v);
  }
  static float sum(F v) {
    const __m256 high = _mm512_castps512_ps256(_mm512_shuffle_f32x4(v, v, 0xEE));
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float largest(F v) { return _mm512_reduce_max_ps(v); }

  static F load_half(const unsigned char* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_half(unsigned char* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F load_bf16(const unsigned char* p) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }

  // x = n ln 2 + r; 2^n e^r. Below the smallest normal number: 0.
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F scale_by_power(F x, F n) { return _mm512_scalef_ps(x, n); }
  static F zero_below(F x, F limit, F value) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), value, zero());
  }

  // The sixteen values that a nibble can mean are one vector, and de-quantising is a permutation of it, whose index
  // ignores all but the low four bits.
  struct Levels {
    F values = _mm512_setzero_ps();
    Levels() = default;
    Levels(float scale, uint8_t zero_point) {
      const F q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      values = _mm512_mul_ps(_mm512_sub_ps(q, _mm512_set1_ps(zero_point)), _mm512_set1_ps(scale));
    }
  };

  // The nibbles of a block of B inputs, and the weights of its vector number S in nibble order.
  template <int B>
  struct Nibbles {
    __m512i words;  // B / 8 of them, repeated where that is fewer than the lanes
    explicit Nibbles(const uint8_t* q) {
      if constexpr (B == 128) words = _mm512_loadu_si512(q);
      if constexpr (B == 64) {
        words = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
      }
      if constexpr (B == 32) words = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
    }
    template <int S>
    F weights(const Levels& levels) const {
      if constexpr (B == 128) {
        return _mm512_permutexvar_ps(S == 0 ? words : _mm512_srli_epi32(words, 4 * S), levels.values);
      }
      if constexpr (B == 64) {
        const __m512i shifts =
            _mm512_setr_epi32(8 * S, 8 * S, 8 * S, 8 * S, 8 * S, 8 * S, 8 * S, 8 * S, 8 * S + 4, 8 * S + 4, 8 * S + 4,
                              8 * S + 4, 8 * S + 4, 8 * S + 4, 8 * S + 4, 8 * S + 4);
        return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), levels.values);
      }
      if constexpr (B == 32) {
        const __m512i shifts = _mm512_setr_epi32(16 * S, 16 * S, 16 * S, 16 * S, 16 * S + 4, 16 * S + 4, 16 * S + 4,
                                                 16 * S + 4, 16 * S + 8, 16 * S + 8, 16 * S + 8, 16 * S + 8,
                                                 16 * S + 12, 16 * S + 12, 16 * S + 12, 16 * S + 12);
        return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), levels.values);
      }
    }
  };
};

}  // namespace
}  // namespace lorikeet::kernels
