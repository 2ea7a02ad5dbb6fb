// The loops of matrix products over a vector type V (simd_avx2.h, simd_avx512.h).
//
// Every (output, row) pair has one vector of sums that takes the inputs in order, a vector of them at a time, and is
// added up at the end. That is so in tiles of any size, hence a row's result is the same in any batch.
// Everything is local to the file that includes this: functions with these instructions must not be shared with others.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu/cpu_kernels.h"

namespace lorikeet::kernels {
namespace {

// Calls f(std::integral_constant<int, size>, first) over [begin, end) in tiles of `Tile`, and one smaller one.
template <int Tile, class F>
inline void for_tiles(int64_t begin, int64_t end, const F& f) {
  for (; begin + Tile <= end; begin += Tile) f(std::integral_constant<int, Tile>(), begin);
  const auto rest = end - begin;
  if constexpr (Tile > 5) {
    if (rest == 5) f(std::integral_constant<int, 5>(), begin);
  }
  if constexpr (Tile > 4) {
    if (rest == 4) f(std::integral_constant<int, 4>(), begin);
  }
  if constexpr (Tile > 3) {
    if (rest == 3) f(std::integral_constant<int, 3>(), begin);
  }
  if constexpr (Tile > 2) {
    if (rest == 2) f(std::integral_constant<int, 2>(), begin);
  }
  if (rest == 1) f(std::integral_constant<int, 1>(), begin);
}

// The same in tiles of `Tile` and single ones.
template <int Tile, class F>
inline void for_tiles_and_ones(int64_t begin, int64_t end, const F& f) {
  for (; begin + Tile <= end; begin += Tile) f(std::integral_constant<int, Tile>(), begin);
  for (; begin < end; ++begin) f(std::integral_constant<int, 1>(), begin);
}

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

// Calls tile(outputs, rows, n, j) for tiles over all rows and outputs [n_begin, n_end); the two sizes are integral
// constants. Rows are taken a second-level cache full at a time, since they are read again for every tile of outputs,
// whereas weights are packed and may well come from memory for every such block.
template <class V, class Tile>
inline void for_product_tiles(const ProductRows& rows, int64_t n_begin, int64_t n_end, const Tile& tile) {
  if (rows.m == 1) {
    for_tiles_and_ones<V::kGemvOutputs>(
        n_begin, n_end, [&](auto outputs, int64_t n) { tile(outputs, std::integral_constant<int, 1>(), n, 0); });
    return;
  }
  constexpr int64_t kBlockFloats = 128 * 1024;
  const int64_t fitting = kBlockFloats / rows.x_stride / V::kTileRows * V::kTileRows;
  const int64_t block = fitting < V::kTileRows ? V::kTileRows : fitting;
  for (int64_t begin = 0; begin < rows.m; begin += block) {
    const int64_t end = begin + block < rows.m ? begin + block : rows.m;
    for_tiles_and_ones<V::kTileOutputs>(n_begin, n_end, [&](auto outputs, int64_t n) {
      for_tiles<V::kTileRows>(begin, end, [&](auto tile_rows, int64_t j) { tile(outputs, tile_rows, n, j); });
    });
  }
}

template <class V>
void int4_product(const Int4Weight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  for_product_tiles<V>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int4_tile<V, outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                         rows.y + j * rows.y_stride + n, rows.y_stride);
  });
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
}  // namespace lorikeet::kernels
