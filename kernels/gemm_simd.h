// The loops of matrix products over a vector type V (simd_avx2.h, simd_avx512.h).
//
// Every (output, row) pair has one vector of sums that takes the inputs in order, a vector of them at a time, and is
// added up at the end. That is so in all tiles below, of few rows and of many, hence a row's result is the same in any
// batch. Everything is local to the file that includes this: functions with these instructions must not be shared with
// others.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu_kernels.h"

namespace lorikeet::kernels {
namespace {

constexpr int32_t kPanelN =
    32;  // outputs, inputs and rows that a panel takes at a time: its weights as floats (64 KiB),
constexpr int32_t kPanelK = 512;  // its activations and its sums (192 KiB each) stay in the second-level cache
constexpr int32_t kPanelM = 96;
constexpr int64_t kPanelStride = kPanelK + 16;  // floats between outputs: not a multiple of the cache's period
static_assert(kPanelN * kPanelStride + kPanelN * kPanelM * 16 == kProductScratch);

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

// ---- Few rows: weights are unpacked in registers.

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

constexpr int32_t kFewRows = 8;  // up to here unpacking twice is cheaper than a panel

// tile(outputs, rows, n, j) computes that tile; the two sizes are integral constants.
template <class V, class Tile>
inline void few_rows(int32_t m, int64_t n_begin, int64_t n_end, const Tile& tile) {
  if (m == 1) {
    for_tiles_and_ones<V::kGemvOutputs>(
        n_begin, n_end, [&](auto outputs, int64_t n) { tile(outputs, std::integral_constant<int, 1>(), n, 0); });
    return;
  }
  for_tiles_and_ones<V::kFewRowsOutputs>(n_begin, n_end, [&](auto outputs, int64_t n) {
    for_tiles<4>(0, m, [&](auto rows, int64_t j) { tile(outputs, rows, n, j); });
  });
}

// ---- Many rows: weights become floats, a panel of [kPanelN, kPanelK] at a time.

// Sums of NT outputs and MT rows over k inputs, continued from and left in `sums` (one vector per pair, rows of an
// output together) unless first or last.
template <class V, int NT, int MT>
inline void panel_tile(const float* w, const float* x, int64_t x_stride, int32_t k, float* sums, bool first, bool last,
                       float* y, int64_t y_stride) {
  typename V::F s[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) s[i][j] = first ? V::zero() : V::load(sums + (i * kPanelM + j) * V::kLanes);
  }
  for (int32_t at = 0; at < k; at += V::kLanes) {
    typename V::F ws[NT];
    for (int i = 0; i < NT; ++i) ws[i] = V::load(w + i * kPanelStride + at);
    for (int j = 0; j < MT; ++j) {
      const typename V::F xs = V::load(x + j * x_stride + at);
      for (int i = 0; i < NT; ++i) s[i][j] = V::fma(ws[i], xs, s[i][j]);
    }
  }
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) {
      if (last) {
        y[j * y_stride + i] = V::sum(s[i][j]);
      } else {
        V::store(sums + (i * kPanelM + j) * V::kLanes, s[i][j]);
      }
    }
  }
}

// unpack(n, k, run, to) writes the floats of output n from k on, at most kPanelK of them, and returns where it stopped
// (as (k, run)). stored_k is where that ends.
struct PanelPlace {
  int32_t k = 0;
  int32_t run = 0;
};

template <class V, class Unpack>
inline void many_rows(const ProductRows& rows, int32_t stored_k, int64_t n_begin, int64_t n_end, float* scratch,
                      const Unpack& unpack) {
  float* weights = scratch;
  float* sums = scratch + kPanelN * kPanelStride;
  const int32_t parts = (rows.m + kPanelM - 1) / kPanelM;
  for (int64_t n = n_begin; n < n_end; n += kPanelN) {
    const int64_t outputs = n_end - n < kPanelN ? n_end - n : kPanelN;
    for (int32_t part = 0; part < parts; ++part) {
      const int64_t m_begin = static_cast<int64_t>(rows.m) * part / parts;
      const int64_t m_end = static_cast<int64_t>(rows.m) * (part + 1) / parts;
      PanelPlace at;
      while (at.k < stored_k) {
        PanelPlace next;
        for (int64_t i = 0; i < outputs; ++i) next = unpack(n + i, at, weights + i * kPanelStride);
        const bool first = at.k == 0, last = next.k >= stored_k;
        for_tiles<V::kPanelRows>(m_begin, m_end, [&](auto tile_rows, int64_t j) {
          for_tiles_and_ones<V::kPanelOutputs>(0, outputs, [&](auto tile_outputs, int64_t i) {
            panel_tile<V, tile_outputs(), tile_rows()>(weights + i * kPanelStride, rows.x + j * rows.x_stride + at.k,
                                                       rows.x_stride, next.k - at.k,
                                                       sums + (i * kPanelM + j - m_begin) * V::kLanes, first, last,
                                                       rows.y + j * rows.y_stride + n + i, rows.y_stride);
          });
        });
        at = next;
      }
    }
  }
}

template <class V, int B, int... S>
inline void store_block(const uint8_t* q, const typename V::Levels& levels, float* to,
                        std::integer_sequence<int, S...> /*steps*/) {
  const typename V::template Nibbles<B> nibbles(q);
  (V::store(to + S * V::kLanes, nibbles.template weights<S>(levels)), ...);
}

template <class V>
inline PanelPlace unpack_int4(const Int4Weight& weight, int64_t n, PanelPlace at, float* to) {
  const uint8_t* q = weight.q.data() + n * (weight.k / 2);
  const int32_t* bounds = weight.run_begin.data();
  const int32_t runs = weight.runs();
  const int32_t limit = at.k + kPanelK;
  while (at.run < runs) {
    const int64_t of_run = static_cast<int64_t>(at.run) * weight.n + n;
    const typename V::Levels levels(weight.scale.data()[of_run], weight.zero.data()[of_run]);
    const int32_t end = bounds[at.run + 1];
    while (at.k < end) {
      const int32_t block = nibble_block(end - at.k, V::kLanes);
      if (at.k + block > limit) return at;
      if constexpr (V::kLanes == 16) {
        if (block == 128) store_block<V, 128>(q + at.k / 2, levels, to, std::make_integer_sequence<int, 8>());
      }
      if (block == 64) store_block<V, 64>(q + at.k / 2, levels, to, std::make_integer_sequence<int, 64 / V::kLanes>());
      if (block == 32) store_block<V, 32>(q + at.k / 2, levels, to, std::make_integer_sequence<int, 32 / V::kLanes>());
      at.k += block;
      to += block;
    }
    ++at.run;
  }
  return at;
}

// ---- What the table of kernels points to.

template <class V>
void int4_product(const Int4Weight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end, float* scratch) {
  if (rows.m > kFewRows) {
    many_rows<V>(rows, weight.k, n_begin, n_end, scratch,
                 [&](int64_t n, PanelPlace at, float* to) { return unpack_int4<V>(weight, n, at, to); });
    return;
  }
  few_rows<V>(rows.m, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int4_tile<V, outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                         rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

template <class V, Dtype D>
void dense_product_of(const DenseWeight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end,
                      float* scratch) {
  if (rows.m > kFewRows) {
    const auto unpack = [&](int64_t n, PanelPlace at, float* to) {
      const auto* w = static_cast<const unsigned char*>(weight.row(static_cast<int32_t>(n)));
      const int32_t limit = at.k + kPanelK < weight.k ? at.k + kPanelK : weight.k;
      for (; at.k < limit; at.k += V::kLanes, to += V::kLanes) {
        const unsigned char* p = w + static_cast<int64_t>(at.k) * static_cast<int64_t>(size_of(D));
        const int32_t rest = weight.k - at.k;
        V::store(to, rest >= V::kLanes ? load_stored<V, D>(p) : load_stored_rest<V, D>(p, rest));
      }
      return at;
    };
    many_rows<V>(rows, weight.k, n_begin, n_end, scratch, unpack);
    return;
  }
  few_rows<V>(rows.m, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    dense_tile<V, D, outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                             rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

template <class V>
void dense_product(const DenseWeight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end, float* scratch) {
  switch (weight.dtype) {
    case Dtype::f16:
      return dense_product_of<V, Dtype::f16>(weight, rows, n_begin, n_end, scratch);
    case Dtype::bf16:
      return dense_product_of<V, Dtype::bf16>(weight, rows, n_begin, n_end, scratch);
    default:
      return dense_product_of<V, Dtype::f32>(weight, rows, n_begin, n_end, scratch);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
