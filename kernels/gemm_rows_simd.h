// The loops of gemm_rows.h over a vector type V, which a file per instruction set supplies:
//   V::F                         a vector of V::kLanes floats
//   V::zero() load(p) fma(a,b,c) sum(v)
//   V::load_half(p) load_bf16(p) kLanes stored 16-bit floats as a vector
//   V::Levels(scale, zero)       of one run of one output; block(q, w) gives the 32 weights of 16 bytes in split order
//
// Every (output, row) pair has one accumulator that takes the inputs in order, so its bits depend neither on how many
// outputs and rows share a tile nor on the threads.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kernels/gemm_rows.h"

namespace lorikeet::kernels {

inline constexpr int kBlock = 32;  // inputs that int4 loops take at a time

template <class V, int NT, int MT>
void int4_tile(const Int4Weight& weight, const float* xs, int64_t n, float* y, int64_t y_stride) {
  constexpr int kVectors = kBlock / V::kLanes;
  typename V::F sums[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  const int64_t row_bytes = weight.k / 2;
  const uint8_t* q = weight.q.data() + n * row_bytes;
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const int64_t at = static_cast<int64_t>(run) * weight.n + n;
    typename V::Levels levels[NT];
    for (int i = 0; i < NT; ++i) {
      levels[i] =
          typename V::Levels(weight.scale[static_cast<size_t>(at + i)], weight.zero[static_cast<size_t>(at + i)]);
    }
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)]; k < weight.run_begin[static_cast<size_t>(run) + 1];
         k += kBlock) {
      typename V::F x[MT][kVectors];
      for (int j = 0; j < MT; ++j) {
        for (int v = 0; v < kVectors; ++v)
          x[j][v] = V::load(xs + static_cast<int64_t>(j) * weight.k + k + v * V::kLanes);
      }
      for (int i = 0; i < NT; ++i) {
        typename V::F w[kVectors];
        levels[i].block(q + i * row_bytes + k / 2, w);
        for (int v = 0; v < kVectors; ++v) {
          for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(w[v], x[j][v], sums[i][j]);
        }
      }
    }
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

// The same product over weights that are floats already, in the order of xs. K % kLanes == 0.
template <class V, int NT, int MT>
void float_tile(const float* w, int64_t w_stride, const float* x, int64_t x_stride, int32_t k, float* y,
                int64_t y_stride) {
  typename V::F sums[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  for (int32_t at = 0; at < k; at += V::kLanes) {
    typename V::F xv[MT];
    for (int j = 0; j < MT; ++j) xv[j] = V::load(x + j * x_stride + at);
    for (int i = 0; i < NT; ++i) {
      const typename V::F wv = V::load(w + i * w_stride + at);
      for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(wv, xv[j], sums[i][j]);
    }
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

template <class V>
void dequantize_split(const Int4Weight& weight, int64_t n, float* w) {
  constexpr int kVectors = kBlock / V::kLanes;
  const uint8_t* q = weight.q.data() + n * (weight.k / 2);
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const auto at = static_cast<size_t>(static_cast<int64_t>(run) * weight.n + n);
    const typename V::Levels levels(weight.scale[at], weight.zero[at]);
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)]; k < weight.run_begin[static_cast<size_t>(run) + 1];
         k += kBlock) {
      typename V::F values[kVectors];
      levels.block(q + k / 2, values);
      for (int v = 0; v < kVectors; ++v) V::store(w + k + v * V::kLanes, values[v]);
    }
  }
}

// Calls f<MT>(first row) for tiles of 4, then 2, 1 rows.
template <class F>
void for_row_tiles(int32_t m, F f) {
  int32_t j = 0;
  for (; j + 4 <= m; j += 4) f(std::integral_constant<int, 4>(), j);
  if (j + 2 <= m) {
    f(std::integral_constant<int, 2>(), j);
    j += 2;
  }
  if (j < m) f(std::integral_constant<int, 1>(), j);
}

template <class V, int NT>
void int4_outputs(const Int4Weight& weight, const float* xs, int32_t m, float* y, int64_t y_stride, int64_t n,
                  float* scratch) {
  if (m <= 4) {
    for_row_tiles(m, [&](auto tile, int32_t j) {
      int4_tile<V, NT, tile()>(weight, xs + static_cast<int64_t>(j) * weight.k, n, y + j * y_stride + n, y_stride);
    });
    return;
  }
  for (int i = 0; i < NT; ++i) dequantize_split<V>(weight, n + i, scratch + static_cast<int64_t>(i) * weight.k);
  for_row_tiles(m, [&](auto tile, int32_t j) {
    float_tile<V, NT, tile()>(scratch, weight.k, xs + static_cast<int64_t>(j) * weight.k, weight.k, weight.k,
                              y + j * y_stride + n, y_stride);
  });
}

template <class V>
void int4_rows(const Int4Weight& weight, const float* xs, int32_t m, float* y, int64_t y_stride, int64_t n_begin,
               int64_t n_end) {
  std::vector<float> scratch(m > 4 ? static_cast<size_t>(4) * static_cast<size_t>(weight.k) : 0);
  int64_t n = n_begin;
  for (; n + 4 <= n_end; n += 4) int4_outputs<V, 4>(weight, xs, m, y, y_stride, n, scratch.data());
  for (; n < n_end; ++n) int4_outputs<V, 1>(weight, xs, m, y, y_stride, n, scratch.data());
}

template <class V, Dtype D>
typename V::F load_stored(const unsigned char* p) {
  if constexpr (D == Dtype::f32) return V::load(reinterpret_cast<const float*>(p));
  if constexpr (D == Dtype::f16) return V::load_half(p);
  if constexpr (D == Dtype::bf16) return V::load_bf16(p);
}

template <class V, Dtype D, int NT, int MT>
void dense_tile(const unsigned char* w, int64_t w_stride, const float* x, int64_t x_stride, int32_t k, float* y,
                int64_t y_stride) {
  typename V::F sums[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  const auto step = [&](const unsigned char* const(&ws)[NT], const float* const(&xs)[MT]) {
    typename V::F xv[MT];
    for (int j = 0; j < MT; ++j) xv[j] = V::load(xs[j]);
    for (int i = 0; i < NT; ++i) {
      const typename V::F wv = load_stored<V, D>(ws[i]);
      for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(wv, xv[j], sums[i][j]);
    }
  };
  const unsigned char* ws[NT];
  const float* xs[MT];
  const int32_t whole = k / V::kLanes * V::kLanes;
  for (int32_t at = 0; at < whole; at += V::kLanes) {
    for (int i = 0; i < NT; ++i) ws[i] = w + i * w_stride + static_cast<int64_t>(at) * static_cast<int64_t>(size_of(D));
    for (int j = 0; j < MT; ++j) xs[j] = x + j * x_stride + at;
    step(ws, xs);
  }
  if (whole < k) {  // the rest of the inputs, with zeros behind them
    unsigned char w_tail[NT][V::kLanes * sizeof(float)] = {};
    float x_tail[MT][V::kLanes] = {};
    const auto rest = static_cast<size_t>(k - whole);
    for (int i = 0; i < NT; ++i) {
      std::memcpy(w_tail[i], w + i * w_stride + static_cast<int64_t>(whole) * static_cast<int64_t>(size_of(D)),
                  rest * size_of(D));
      ws[i] = w_tail[i];
    }
    for (int j = 0; j < MT; ++j) {
      std::memcpy(x_tail[j], x + j * x_stride + whole, rest * sizeof(float));
      xs[j] = x_tail[j];
    }
    step(ws, xs);
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

template <class V, Dtype D>
void dense_rows_of(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y, int64_t y_stride,
                   int64_t n_begin, int64_t n_end) {
  const auto row_bytes = static_cast<int64_t>(weight.k) * static_cast<int64_t>(size_of(D));
  const auto* w = static_cast<const unsigned char*>(weight.data);
  int64_t n = n_begin;
  for (; n + 4 <= n_end; n += 4) {
    for_row_tiles(m, [&](auto tile, int32_t j) {
      dense_tile<V, D, 4, tile()>(w + n * row_bytes, row_bytes, x + j * x_stride, x_stride, weight.k,
                                  y + j * y_stride + n, y_stride);
    });
  }
  for (; n < n_end; ++n) {
    for_row_tiles(m, [&](auto tile, int32_t j) {
      dense_tile<V, D, 1, tile()>(w + n * row_bytes, row_bytes, x + j * x_stride, x_stride, weight.k,
                                  y + j * y_stride + n, y_stride);
    });
  }
}

template <class V>
void dense_rows(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y, int64_t y_stride,
                int64_t n_begin, int64_t n_end) {
  switch (weight.dtype) {
    case Dtype::f16:
      return dense_rows_of<V, Dtype::f16>(weight, x, x_stride, m, y, y_stride, n_begin, n_end);
    case Dtype::bf16:
      return dense_rows_of<V, Dtype::bf16>(weight, x, x_stride, m, y, y_stride, n_begin, n_end);
    default:
      return dense_rows_of<V, Dtype::f32>(weight, x, x_stride, m, y, y_stride, n_begin, n_end);
  }
}

}  // namespace lorikeet::kernels
