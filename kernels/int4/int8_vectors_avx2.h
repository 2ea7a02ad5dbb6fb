// Vectors of 32 bytes and 8 floats with AVX2, and with AVX-VNNI or AVX512-VNNI where this is compiled for them. For
// int8_product_simd.cc.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {
namespace {

#define LORIKEET_INLINE __attribute__((always_inline)) static inline

struct ByteVectors {
#if defined(__AVX512VNNI__)
  static constexpr IntegerDot kDot = IntegerDot::avx512_vnni;
#elif defined(__AVXVNNI__)
  static constexpr IntegerDot kDot = IntegerDot::avx_vnni;
#else
  static constexpr IntegerDot kDot = IntegerDot::avx2;
#endif

  using Bytes = __m256i;
  using Sums = __m256i;  // of products of bytes, for 8 lanes
  using Floats = __m256;

  LORIKEET_INLINE Bytes load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  LORIKEET_INLINE Bytes low(Bytes bytes) {
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
  }
  LORIKEET_INLINE Bytes high(Bytes bytes) {
    return low(_mm256_srli_epi16(bytes, 4));
  }
  // Of every 16 bytes of a and b the first 8, or the last 8.
  LORIKEET_INLINE Bytes even_eights(Bytes a, Bytes b) {
    return _mm256_unpacklo_epi64(a, b);
  }
  LORIKEET_INLINE Bytes odd_eights(Bytes a, Bytes b) {
    return _mm256_unpackhi_epi64(a, b);
  }
  // The low nibbles of 16 bytes, and their high ones behind them.
  LORIKEET_INLINE Bytes low_then_high(const uint8_t* q) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    return low(_mm256_set_m128i(_mm_srli_epi16(a, 4), a));
  }

  // Nibbles are at most 15 and the others 127: four products of a pair of bytes fit into 16 bits.
  LORIKEET_INLINE Sums no_sums() {
    return _mm256_setzero_si256();
  }
  LORIKEET_INLINE Sums add_products(Sums sums, Bytes nibbles, Bytes bytes) {
#if defined(__AVX512VNNI__)
    return _mm256_dpbusd_epi32(sums, nibbles, bytes);
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sums, nibbles, bytes);
#else
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(nibbles, bytes));
#endif
  }
  LORIKEET_INLINE Floats to_floats(Sums sums) {
    if constexpr (kDot == IntegerDot::avx2) sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(sums);
  }

  LORIKEET_INLINE Floats zero() {
    return _mm256_setzero_ps();
  }
  LORIKEET_INLINE Floats set(float x) {
    return _mm256_set1_ps(x);
  }
  LORIKEET_INLINE Floats load_floats(const float* p) {
    return _mm256_loadu_ps(p);
  }
  LORIKEET_INLINE Floats mul(Floats a, Floats b) {
    return _mm256_mul_ps(a, b);
  }
  LORIKEET_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  LORIKEET_INLINE float sum(Floats v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

#undef LORIKEET_INLINE

}  // namespace
}  // namespace lorikeet::kernels
