// A tile of the int4 product with AVX2 or NEON: a run is scaled, and its zero point taken off, once and as a whole:
// scale * (sum of q x - zero * sum of x). For int4_product_simd.cc.
#pragma once

#include <array>
#include <utility>

#include "kernels/cpu/product_simd.h"
#include "kernels/cpu/simd.h"
#include "kernels/int4/int4_view.h"

namespace lorikeet::kernels {
namespace {

// The functions of the loop are always inlined, and their steps unrolled by folds: sums that a compiler holds in memory
// instead of registers cost it half of its speed.
#define LORIKEET_INLINE __attribute__((always_inline)) inline

template <class V, int B, int... I>
LORIKEET_INLINE std::array<typename V::template Nibbles<B>, sizeof...(I)> nibbles_of(
    const uint8_t* q, int64_t row_bytes, std::integer_sequence<int, I...> /*outputs*/) {
  return {typename V::template Nibbles<B>(q + I * row_bytes)...};
}

// Step S of a block: the weights of one vector of inputs of NT outputs, times those inputs of MT rows.
template <class V, int B, int S, int NT, int MT, int... I>
LORIKEET_INLINE void add_step(const typename V::template Nibbles<B>* nibbles, const float* x, int64_t x_stride,
                              typename V::F (*part)[MT], std::integer_sequence<int, I...> /*pairs*/) {
  typename V::F xs[MT], w[NT];
  for (int j = 0; j < MT; ++j) xs[j] = V::load(x + j * x_stride + S * V::kLanes);
  ((I % MT == 0 ? void(w[I / MT] = nibbles[I / MT].template weights<S>()) : void(),
    part[I / MT][I % MT] = V::fma(w[I / MT], xs[I % MT], part[I / MT][I % MT])),
   ...);
}

// A block of the inputs, for outputs in groups whose words find room in registers.
template <class V, int B, int NT, int MT, int... S>
LORIKEET_INLINE void add_block(const uint8_t* q, int64_t row_bytes, const float* x, int64_t x_stride,
                               typename V::F (*part)[MT], std::integer_sequence<int, S...> steps) {
  constexpr int kGroup = NT < V::kWordsInRegisters ? NT : V::kWordsInRegisters;
  const auto nibbles = nibbles_of<V, B>(q, row_bytes, std::make_integer_sequence<int, kGroup>());
  (add_step<V, B, S, kGroup>(nibbles.data(), x, x_stride, part, std::make_integer_sequence<int, kGroup * MT>()), ...);
  if constexpr (NT > kGroup) {
    __asm__("" : "+r"(x));  // the inputs are read again: a compiler that keeps them has no registers left for the sums
    add_block<V, B, NT - kGroup>(q + kGroup * row_bytes, row_bytes, x, x_stride, part + kGroup, steps);
  }
}

// While one tile is computed, the weights of a later one are fetched.
template <class V, int B, int NT, int MT>
LORIKEET_INLINE void add_next_block(const uint8_t*& q, int64_t row_bytes, int64_t ahead, const float*& x,
                                    int64_t x_stride, typename V::F (*part)[MT]) {
  for (int i = 0; i < NT; ++i) __builtin_prefetch(q + i * row_bytes + ahead, 0, 2);
  add_block<V, B, NT>(q, row_bytes, x, x_stride, part, std::make_integer_sequence<int, B / V::kLanes>());
  q += B / 2;
  x += B;
}

// The blocks of `B` inputs that are in the next `left` inputs. Several rows are a tenth slower where a compiler unrolls
// this, and one row is a little faster.
template <class V, int B, int NT, int MT>
LORIKEET_INLINE void add_blocks(int64_t& left, const uint8_t*& q, int64_t row_bytes, int64_t ahead, const float*& x,
                                int64_t x_stride, typename V::F (*part)[MT]) {
  if constexpr (MT == 1) {
    for (; left >= B; left -= B) add_next_block<V, B, NT>(q, row_bytes, ahead, x, x_stride, part);
  } else {
#pragma GCC unroll 1
    for (; left >= B; left -= B) add_next_block<V, B, NT>(q, row_bytes, ahead, x, x_stride, part);
  }
}

// Bytes as floats. A look-up leaves the arithmetic units to the weights.
constexpr std::array<float, 256> kFloats = [] {
  std::array<float, 256> floats{};
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = static_cast<float>(i);
  return floats;
}();

// Run: how long every run is; 0 where they differ.
template <class V, int NT, int MT, int Run = 0>
void int4_tile(const Int4View& weight, const float* x, int64_t x_stride, int64_t n, float* y, int64_t y_stride) {
  typename V::F sums[NT][MT], part[NT][MT];
  for (int i = 0; i < NT; ++i) {
    for (int j = 0; j < MT; ++j) sums[i][j] = V::zero();
  }
  const int64_t row_bytes = weight.k / 2, ahead = prefetch_distance(NT * row_bytes);
  const uint8_t* q = weight.q.data() + n * row_bytes;
  const float* behind = x + weight.k;
  const int32_t* bounds = weight.run_begin.data();
  const int32_t runs = weight.runs();
  const float* scale = weight.scale.data() + n;
  const uint8_t* zero = weight.zero.data() + n;
  for (int32_t run = 0; run < runs; ++run, scale += weight.n, zero += weight.n, behind += V::kFloatsOfRun) {
    __builtin_prefetch(scale + 16);
    __builtin_prefetch(zero + 64);
    for (int i = 0; i < NT; ++i) {
      const typename V::F zero_point = V::set(kFloats[zero[i]]);
      for (int j = 0; j < MT; ++j) part[i][j] = V::begin_run(zero_point, behind + j * x_stride);
    }
    int64_t left = Run > 0 ? Run : bounds[run + 1] - bounds[run];
    if constexpr (V::kLanes == 8) add_blocks<V, 64, NT>(left, q, row_bytes, ahead, x, x_stride, part);
    add_blocks<V, 32, NT>(left, q, row_bytes, ahead, x, x_stride, part);
    for (int i = 0; i < NT; ++i) {
      const typename V::F factor = V::set(scale[i]);
      for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(factor, part[i][j], sums[i][j]);
    }
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
