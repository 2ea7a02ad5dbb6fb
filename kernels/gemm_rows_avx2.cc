// Compiled with AVX2, FMA and F16C; called only where the machine has them.
#include <immintrin.h>

#include <vector>

#include "kernels/gemm_rows_simd.h"

namespace lorikeet::kernels {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kLanes = 8;
  static F zero() { return _mm256_setzero_ps(); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static float sum(F v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static F load_half(const unsigned char* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load_bf16(const unsigned char* p) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }

  struct Levels {
    __m256 scale = _mm256_setzero_ps(), zero = _mm256_setzero_ps();
    Levels() = default;
    Levels(float s, uint8_t z) : scale(_mm256_set1_ps(s)), zero(_mm256_set1_ps(z)) {}
    __m256 value(__m256i q) const { return _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(q), zero), scale); }
    void block(const uint8_t* q, F (&w)[4]) const {
      const __m256i mask = _mm256_set1_epi32(15);
      for (int half = 0; half < 2; ++half) {
        const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + 8 * half)));
        w[half] = value(_mm256_and_si256(bytes, mask));
        w[2 + half] = value(_mm256_srli_epi32(bytes, 4));
      }
    }
  };
};

}  // namespace

const GemmRows* gemm_rows_avx2() {
  static constexpr GemmRows rows = {&int4_rows<Avx2>, &dense_rows<Avx2>};
  return &rows;
}

}  // namespace lorikeet::kernels
