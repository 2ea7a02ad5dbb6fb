#include "kernels/dense/dense_product_simd.h"

#include "kernels/cpu/product_simd.h"
#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

template <class V, Dtype D>
inline typename V::F load_stored(const unsigned char* p) {
  if constexpr (D == Dtype::f16) {
    return V::load_half(p);
  } else if constexpr (D == Dtype::bf16) {
    return V::load_bf16(p);
  } else {
    return V::load(reinterpret_cast<const float*>(p));
  }
}

// The last `rest` values of a row, with zeros behind them.
template <class V, Dtype D>
inline typename V::F load_stored_rest(const unsigned char* p, int32_t rest) {
  unsigned char padded[V::kLanes * sizeof(float)] = {};
  __builtin_memcpy(padded, p, static_cast<size_t>(rest) * size_of(D));
  return load_stored<V, D>(padded);
}

template <class V, Dtype D, int NT, int MT>
void dense_tile(const DenseWeight& weight, const float* x, int64_t x_stride, int64_t n, float* y, int64_t y_stride) {
  typename V::F sums[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  const int64_t row_bytes = static_cast<int64_t>(weight.k) * static_cast<int64_t>(size_of(D));
  const unsigned char* w = static_cast<const unsigned char*>(weight.data) + n * row_bytes;
  const auto step = [&](int32_t k, const auto& load) {
    typename V::F xs[MT];
    for (int j = 0; j < MT; ++j) xs[j] = V::load(x + j * x_stride + k);
    for (int i = 0; i < NT; ++i) {
      const typename V::F ws = load(w + i * row_bytes + static_cast<int64_t>(k) * static_cast<int64_t>(size_of(D)));
      for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(ws, xs[j], sums[i][j]);
    }
  };
  int32_t k = 0;
  for (; k + V::kLanes <= weight.k; k += V::kLanes) {
    step(k, [&](const unsigned char* p) {
      __builtin_prefetch(p + NT * row_bytes, 0, 2);
      return load_stored<V, D>(p);
    });
  }
  const int32_t rest = weight.k - k;
  if (rest > 0) step(k, [rest](const unsigned char* p) { return load_stored_rest<V, D>(p, rest); });
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

template <class V, Dtype D>
void dense_product_of(const DenseWeight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  for_product_tiles<V>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    dense_tile<V, D, outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                             rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

template <class V>
void dense_product(const DenseWeight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  switch (weight.dtype) {
    case Dtype::f16:
      return dense_product_of<V, Dtype::f16>(weight, rows, n_begin, n_end);
    case Dtype::bf16:
      return dense_product_of<V, Dtype::bf16>(weight, rows, n_begin, n_end);
    default:
      return dense_product_of<V, Dtype::f32>(weight, rows, n_begin, n_end);
  }
}

}  // namespace

template <>
DenseProductLoop* dense_product_for<kSimdIsa>() {
  return &dense_product<Simd>;
}

}  // namespace lorikeet::kernels
