// The product of int4 weights and activations in 8 bits with vectors of 256 bits. Compiled once for each way to multiply
// bytes (kernels/CMakeLists.txt), called only where the machine has it.
#include <immintrin.h>

#include "kernels/cpu/product_simd.h"
#include "kernels/int4/int8_inputs.h"

namespace lorikeet::kernels {
namespace {

#define LORIKEET_INLINE __attribute__((always_inline)) inline

// Sums of products of unsigned and signed bytes. Nibbles are at most 15 and the others 128: four products of a pair of
// bytes fit into 16 bits.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
LORIKEET_INLINE __m256i add_products(__m256i sums, __m256i nibbles, __m256i bytes) {
#if defined(__AVX512VNNI__)
  return _mm256_dpbusd_epi32(sums, nibbles, bytes);
#else
  return _mm256_dpbusd_avx_epi32(sums, nibbles, bytes);
#endif
}
LORIKEET_INLINE __m256i lanes_of_sums(__m256i sums) {
  return sums;
}
#else
LORIKEET_INLINE __m256i add_products(__m256i sums, __m256i nibbles, __m256i bytes) {
  return _mm256_add_epi16(sums, _mm256_maddubs_epi16(nibbles, bytes));
}
LORIKEET_INLINE __m256i lanes_of_sums(__m256i sums) {
  return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}
#endif
#if defined(__AVX512VNNI__)
constexpr IntegerDot kDot = IntegerDot::avx512_vnni;
#elif defined(__AVXVNNI__)
constexpr IntegerDot kDot = IntegerDot::avx_vnni;
#else
constexpr IntegerDot kDot = IntegerDot::avx2;
#endif

LORIKEET_INLINE __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
LORIKEET_INLINE __m256i low(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}
LORIKEET_INLINE __m256i high(__m256i bytes) {
  return low(_mm256_srli_epi16(bytes, 4));
}

// The nibbles of a block of B inputs, a byte each, in vectors.
template <int B>
struct BlockNibbles {
  static constexpr int kVectors = B / 32;
  __m256i vectors[kVectors];
};
template <int B>
LORIKEET_INLINE BlockNibbles<B> unpack(const uint8_t* q) {
  BlockNibbles<B> block;
  if constexpr (B == 128) {
    const __m256i a = load(q), b = load(q + 32);
    const __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);
    block.vectors[0] = low(even);
    block.vectors[1] = high(even);
    block.vectors[2] = low(odd);
    block.vectors[3] = high(odd);
  } else if constexpr (B == 64) {
    const __m256i a = load(q);
    block.vectors[0] = low(a);
    block.vectors[1] = high(a);
  } else {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    block.vectors[0] = low(_mm256_set_m128i(_mm_srli_epi16(a, 4), a));
  }
  return block;
}

// Where a tile is in its inputs.
struct Place {
  const uint8_t* q;
  const int8_t* bytes;
  const float* scales;
};

// The blocks of B inputs that are in the next `left` inputs of a run. While one tile is computed, the weights of a later
// one are fetched.
template <int B, int NT, int MT>
LORIKEET_INLINE void add_blocks(int32_t& left, Place& at, int64_t row_bytes, int64_t ahead, int64_t x_stride,
                                __m256 (*part)[MT]) {
  for (; left >= B; left -= B, at.q += B / 2, at.bytes += B, at.scales += Int8Inputs::kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < NT; ++i) {
      __builtin_prefetch(at.q + i * row_bytes + ahead, 0, 2);
      const BlockNibbles<B> nibbles = unpack<B>(at.q + i * row_bytes);
#pragma GCC unroll 8
      for (int j = 0; j < MT; ++j) {
        const int8_t* bytes = at.bytes + j * x_stride * static_cast<int64_t>(sizeof(float));
        __m256i sums = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int v = 0; v < B / 32; ++v) sums = add_products(sums, nibbles.vectors[v], load(bytes + 32 * v));
        part[i][j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(lanes_of_sums(sums)), _mm256_loadu_ps(at.scales + j * x_stride),
                                     part[i][j]);
      }
    }
  }
}

LORIKEET_INLINE float sum_of(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Of a run: scale * (sum of nibbles times inputs - zero * sum of inputs).
template <int NT, int MT>
void int8_tile(const Int4View& weight, const float* x, int64_t x_stride, int64_t blocks, int64_t n, float* y,
               int64_t y_stride) {
  const int64_t row_bytes = weight.k / 2, ahead = prefetch_distance(NT * row_bytes);
  Place at = {weight.q.data() + n * row_bytes, reinterpret_cast<const int8_t*>(x), x + weight.k / 4};
  const float* run_sums = at.scales + Int8Inputs::kLanes * blocks;
  const float* scale = weight.scale.data() + n;
  const uint8_t* zero = weight.zero.data() + n;
  __m256 sums[NT][MT], part[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = _mm256_setzero_ps();
  }
  for (int32_t run = 0; run < weight.runs(); ++run, scale += weight.n, zero += weight.n) {
    __builtin_prefetch(scale + 16);
    __builtin_prefetch(zero + 64);
    for (int i = 0; i < NT; ++i) {
      const __m256 minus_zero = _mm256_set1_ps(-static_cast<float>(zero[i]));
      for (int j = 0; j < MT; ++j) part[i][j] = _mm256_mul_ps(minus_zero, _mm256_loadu_ps(run_sums + j * x_stride));
    }
    run_sums += Int8Inputs::kLanes;
    const size_t r = static_cast<size_t>(run);
    int32_t left = weight.run_begin[r + 1] - weight.run_begin[r];
    add_blocks<128, NT, MT>(left, at, row_bytes, ahead, x_stride, part);
    add_blocks<64, NT, MT>(left, at, row_bytes, ahead, x_stride, part);
    add_blocks<32, NT, MT>(left, at, row_bytes, ahead, x_stride, part);
    for (int i = 0; i < NT; ++i) {
      const __m256 factor = _mm256_set1_ps(scale[i]);
      for (int j = 0; j < MT; ++j) sums[i][j] = _mm256_fmadd_ps(factor, part[i][j], sums[i][j]);
    }
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = sum_of(sums[i][j]);
  }
}

struct Tiles {
  static constexpr int kGemvOutputs = 4;
  static constexpr int kTileOutputs = 2, kTileRows = 4;
};

void int8_product(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  const int64_t blocks = Int8Inputs::blocks_of(weight);
  for_product_tiles<Tiles>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int8_tile<outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, blocks, n,
                                      rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

}  // namespace

template <>
Int8ProductLoop* int8_product_for<kDot>() {
  return &int8_product;
}

}  // namespace lorikeet::kernels
