#include "kernels/int4/int4_product_simd.h"

#include "kernels/cpu/product_simd.h"
#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

template <class V, int B, int NT, int MT, int... S>
inline void add_block(const uint8_t* q, int64_t row_bytes, const typename V::Levels (&levels)[NT], const float* x,
                      int64_t x_stride, typename V::F (&sums)[NT][MT], std::integer_sequence<int, S...> /*steps*/) {
  const auto step = [&](auto number, const typename V::template Nibbles<B>(&nibbles)[NT]) {
    typename V::F xs[MT];
    for (int j = 0; j < MT; ++j) xs[j] = V::load(x + j * x_stride + number() * V::kLanes);
    for (int i = 0; i < NT; ++i) {
      const typename V::F w = nibbles[i].template weights<number()>(levels[i]);
      for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(w, xs[j], sums[i][j]);
    }
  };
  [&]<int... I>(std::integer_sequence<int, I...>) {
    const typename V::template Nibbles<B> nibbles[NT] = {typename V::template Nibbles<B>(q + I * row_bytes)...};
    (step(std::integral_constant<int, S>(), nibbles), ...);
  }
  (std::make_integer_sequence<int, NT>());
}

// While one tile is computed, the weights of the next are fetched into the second-level cache.
template <class V, int NT, int MT>
void int4_tile(const Int4Weight& weight, const float* x, int64_t x_stride, int64_t n, float* y, int64_t y_stride) {
  typename V::F sums[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  const int64_t row_bytes = weight.k / 2;
  const uint8_t* q = weight.q.data() + n * row_bytes;
  const int32_t* bounds = weight.run_begin.data();
  const int32_t runs = weight.runs();
  for (int32_t run = 0; run < runs; ++run) {
    const float* scale = weight.scale.data() + static_cast<int64_t>(run) * weight.n + n;
    const uint8_t* zero = weight.zero.data() + static_cast<int64_t>(run) * weight.n + n;
    __builtin_prefetch(scale + 16);
    __builtin_prefetch(zero + 64);
    typename V::Levels levels[NT];
    for (int i = 0; i < NT; ++i) levels[i] = typename V::Levels(scale[i], zero[i]);
    int32_t k = bounds[run];
    const int32_t end = bounds[run + 1];
    const auto blocks = [&](auto size) {
      constexpr int kSize = size();
      for (; k + kSize <= end; k += kSize) {
        for (int i = 0; i < NT; ++i) __builtin_prefetch(q + (NT + i) * row_bytes + k / 2, 0, 2);
        add_block<V, kSize>(q + k / 2, row_bytes, levels, x + k, x_stride, sums,
                            std::make_integer_sequence<int, kSize / V::kLanes>());
      }
    };
    if constexpr (V::kLanes == 16) blocks(std::integral_constant<int, 128>());
    blocks(std::integral_constant<int, 64>());
    blocks(std::integral_constant<int, 32>());
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

template <class V>
void int4_product(const Int4Weight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  for_product_tiles<V>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int4_tile<V, outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                         rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

}  // namespace

template <>
Int4ProductLoop* int4_product_for<kSimdIsa>() {
  return &int4_product<Simd>;
}

}  // namespace lorikeet::kernels
