// Compiled with AVX-512 (F, BW, VL); called only where the machine has it.
#include <immintrin.h>

#include <vector>

#include "kernels/gemm_rows_simd.h"

namespace lorikeet::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kLanes = 16;
  static F zero() { return _mm512_setzero_ps(); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static float sum(F v) { return _mm512_reduce_add_ps(v); }
  static F load_half(const unsigned char* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_bf16(const unsigned char* p) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }

  // The sixteen values that a nibble can mean are one vector, and de-quantising is a permutation of it, whose index
  // ignores all but the low four bits.
  struct Levels {
    __m512 values = _mm512_setzero_ps();
    Levels() = default;
    Levels(float scale, uint8_t zero) {
      const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      values = _mm512_mul_ps(_mm512_sub_ps(q, _mm512_set1_ps(zero)), _mm512_set1_ps(scale));
    }
    void block(const uint8_t* q, F (&w)[2]) const {
      const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
      w[0] = _mm512_permutexvar_ps(bytes, values);
      w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), values);
    }
  };
};

}  // namespace

const GemmRows* gemm_rows_avx512() {
  static constexpr GemmRows rows = {&int4_rows<Avx512>, &dense_rows<Avx512>};
  return &rows;
}

}  // namespace lorikeet::kernels
