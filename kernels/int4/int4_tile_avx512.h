// A tile of the int4 product with AVX-512: weights are looked up, scaled, in the sixteen values of their run. For
// int4_product_simd.cc.
#pragma once

#include <array>
#include <utility>

#include "kernels/cpu/simd.h"
#include "kernels/int4/int4_view.h"

namespace lorikeet::kernels {
namespace {

// Calls block(size, k) for the blocks of a run [k, end); size is an integral constant.
template <class V, class F>
inline void for_blocks(int32_t k, int32_t end, const F& block) {
  const auto blocks = [&](auto size) {
    for (; k + size() <= end; k += size()) block(size, k);
  };
  blocks(std::integral_constant<int, 128>());
  blocks(std::integral_constant<int, 64>());
  blocks(std::integral_constant<int, 32>());
}

template <int... S, class F>
inline void for_steps(std::integer_sequence<int, S...> /*steps*/, const F& step) {
  (step(std::integral_constant<int, S>()), ...);
}

// While one tile is computed, the weights of the next are fetched into the second-level cache.
template <class V, int NT, int MT>
void int4_tile(const Int4View& weight, const float* x, int64_t x_stride, int64_t n, float* y, int64_t y_stride) {
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
    const auto levels = [&]<int... I>(std::integer_sequence<int, I...>) {
      return std::array<typename V::Levels, NT>{typename V::Levels(scale[I], zero[I])...};
    }
    (std::make_integer_sequence<int, NT>());
    for_blocks<V>(bounds[run], bounds[run + 1], [&](auto size, int32_t k) {
      using Nibbles = typename V::template Nibbles<size()>;
      for (int i = 0; i < NT; ++i) __builtin_prefetch(q + (NT + i) * row_bytes + k / 2, 0, 2);
      const auto nibbles = [&]<int... I>(std::integer_sequence<int, I...>) {
        return std::array<Nibbles, NT>{Nibbles(q + I * row_bytes + k / 2)...};
      }
      (std::make_integer_sequence<int, NT>());
      for_steps(std::make_integer_sequence<int, size() / V::kLanes>(), [&](auto number) {
        typename V::F xs[MT];
        for (int j = 0; j < MT; ++j) xs[j] = V::load(x + j * x_stride + k + number() * V::kLanes);
        for (int i = 0; i < NT; ++i) {
          const typename V::F w = nibbles[i].template weights<number()>(levels[i]);
          for (int j = 0; j < MT; ++j) sums[i][j] = V::fma(w, xs[j], sums[i][j]);
        }
      });
    });
  }
  for (int j = 0; j < MT; ++j) {
    for (int i = 0; i < NT; ++i) y[j * y_stride + i] = V::sum(sums[i][j]);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
