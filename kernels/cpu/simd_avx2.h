// The vector type of AVX2, for files compiled with it (kernels/cpu/simd.h): everything here is local to a file, so that
// no code with AVX2 in it is ever shared with files for machines that lack it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lorikeet::kernels {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kLanes = 8;

  // Tiles that fit into 16 registers.
  static constexpr int kGemvOutputs = 8;       // where there is one row
  static constexpr int kWordsInRegisters = 4;  // of outputs, beside a tile's sums
  static constexpr int kTileOutputs = 3, kTileRows = 3;
  static constexpr int kScoreVectors = 2, kValueVectors = 2;

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static __m256i first(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F load_first(const float* p, int64_t count) {
    return count >= kLanes ? load(p) : _mm256_maskload_ps(p, first(count));
  }
  static void store_first(float* p, F v, int64_t count) {
    if (count >= kLanes) return store(p, v);  // masked stores are slow
    _mm256_maskstore_ps(p, first(count), v);
  }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where either is not a number
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  // The first `count` lanes of v, and `other` in the rest.
  static F keep_first(F v, int64_t count, F other) {
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(first(count)));
  }
  static float sum(F v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float largest(F v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }

  static F load_half(const unsigned char* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_half(unsigned char* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F load_bf16(const unsigned char* p) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }

  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x * 2^n for x near 1 and n in [-126, 128], in two steps as 2^128 is no number.
  static F scale_by_power(F x, F n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return mul(mul(x, power(half)), power(_mm256_sub_epi32(whole, half)));
  }
  static F power(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static F zero_below(F x, F limit, F value) { return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), value); }

  // Of a prepared row behind its inputs, for each run: minus the sums of the inputs, and minus what their products with
  // Nibbles have too much.
  static constexpr int kFloatsOfRun = 2 * kLanes;
  static F begin_run(F zero_point, const float* behind) { return fma(zero_point, load(behind), load(behind + kLanes)); }

  // The nibbles of a block of B inputs, and vector number S of them as floats, by no conversion: a byte with a nibble in
  // its mantissa becomes the low half of a bfloat16 whose high half is fixed. What that adds to the nibble, and what the
  // second bfloat16 of the same lane adds where it is not shifted out, x makes up for (kernels/int4/int4_inputs.cc).
  template <int B>
  struct Nibbles {
    __m256i words;  // of a block of 32 inputs twice: once for the low nibbles of its bytes, once for the high ones
    explicit Nibbles(const uint8_t* q) {
      if constexpr (B == 64) words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
      if constexpr (B == 32) words = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
    }
    template <int S>
    F weights() const {
      const __m256i bytes = _mm256_and_si256(shifted<S>(), _mm256_set1_epi8(0x78));
      const __m256i fixed = _mm256_set1_epi8(0x41);
      const __m256i halves = S / 2 % 2 == 0 ? _mm256_unpacklo_epi8(bytes, fixed) : _mm256_unpackhi_epi8(bytes, fixed);
      return _mm256_castsi256_ps(S % 2 == 0 ? halves : _mm256_slli_epi32(halves, 16));
    }

   private:
    template <int S>
    __m256i shifted() const {
      if constexpr (B == 64) return S < 4 ? _mm256_slli_epi32(words, 3) : _mm256_srli_epi32(words, 1);
      const __m256i low = _mm256_setr_epi32(3, 3, 3, 3, 0, 0, 0, 0), high = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
      return _mm256_srlv_epi32(_mm256_sllv_epi32(words, low), high);
    }
  };
};

}  // namespace
}  // namespace lorikeet::kernels
