// Exponentials, the MLP's gate and LoRA's second product over a vector type V (simd_avx2.h, simd_avx512.h).
#pragma once

#include "kernels/cpu/cpu_kernels.h"

namespace lorikeet::kernels {
namespace {

// e^x to about 2e-7 relative: x = n ln 2 + r with |r| <= ln 2 / 2, and e^r as its series up to r^7 / 7!. Below the
// smallest normal number it gives 0, above the largest one about that.
template <class V>
inline typename V::F exponential(typename V::F x) {
  const typename V::F lowest = V::set(-87.33654F), highest = V::set(88.37626F);
  // max gives its second operand where one is not a number, so that passes through.
  const typename V::F bounded =
      V::sub(V::zero(), V::max(V::sub(V::zero(), highest), V::sub(V::zero(), V::max(lowest, x))));
  const typename V::F n = V::round(V::mul(bounded, V::set(1.44269504F)));
  typename V::F r = V::fma(n, V::set(-0.693359375F), bounded);  // ln 2 in two parts, the first exact in few bits
  r = V::fma(n, V::set(2.12194440e-4F), r);
  typename V::F p = V::set(1.0F / 5040);
  p = V::fma(p, r, V::set(1.0F / 720));
  p = V::fma(p, r, V::set(1.0F / 120));
  p = V::fma(p, r, V::set(1.0F / 24));
  p = V::fma(p, r, V::set(1.0F / 6));
  p = V::fma(p, r, V::set(0.5F));
  p = V::fma(p, r, V::set(1));
  p = V::fma(p, r, V::set(1));
  return V::zero_below(x, lowest, V::scale_by_power(p, n));
}

// Calls f(first, count) with count == kLanes, then once with what is left.
template <class V, class F>
inline void for_vectors(int64_t begin, int64_t end, const F& f) {
  for (; begin + V::kLanes <= end; begin += V::kLanes) f(begin, static_cast<int64_t>(V::kLanes));
  if (begin < end) f(begin, end - begin);
}

template <class V>
void silu_mul(const float* gate, const float* up, int64_t count, float* y) {
  for_vectors<V>(0, count, [&](int64_t i, int64_t lanes) {
    const typename V::F g = V::load_first(gate + i, lanes);
    const typename V::F denominator = V::add(V::set(1), exponential<V>(V::sub(V::zero(), g)));
    V::store_first(y + i, V::mul(V::div(g, denominator), V::load_first(up + i, lanes)), lanes);
  });
}

template <class V>
float exp_sum(const float* x, int64_t count, float max) {
  typename V::F sum = V::zero();
  for_vectors<V>(0, count, [&](int64_t i, int64_t lanes) {
    const typename V::F e = exponential<V>(V::sub(V::load_first(x + i, lanes), V::set(max)));
    sum = V::add(sum, V::keep_first(e, lanes, V::zero()));
  });
  return V::sum(sum);
}

template <class V, int MT>
inline void low_rank_tile(const float* low, int32_t rank, const float* b, int64_t b_stride, float scale,
                          const float* factor, float* const* y, int64_t n, int64_t lanes) {
  typename V::F sums[MT];
  for (int j = 0; j < MT; ++j) sums[j] = V::zero();
  for (int32_t r = 0; r < rank; ++r) {
    const typename V::F bs = V::load_first(b + r * b_stride + n, lanes);
    for (int j = 0; j < MT; ++j) sums[j] = V::fma(bs, V::set(low[static_cast<int64_t>(j) * rank + r]), sums[j]);
  }
  for (int j = 0; j < MT; ++j) {
    typename V::F result = V::fma(V::set(scale), sums[j], V::load_first(y[j] + n, lanes));
    if (factor != nullptr) result = V::mul(result, V::load_first(factor + n, lanes));
    V::store_first(y[j] + n, result, lanes);
  }
}

template <class V>
void low_rank_update(const float* low, int32_t rank, const float* b, int64_t b_stride, float scale, const float* factor,
                     float* const* y, int32_t m, int64_t n_begin, int64_t n_end) {
  for_vectors<V>(n_begin, n_end, [&](int64_t n, int64_t lanes) {
    int32_t j = 0;
    for (; j + 4 <= m; j += 4) {
      low_rank_tile<V, 4>(low + static_cast<int64_t>(j) * rank, rank, b, b_stride, scale, factor, y + j, n, lanes);
    }
    for (; j < m; ++j) {
      low_rank_tile<V, 1>(low + static_cast<int64_t>(j) * rank, rank, b, b_stride, scale, factor, y + j, n, lanes);
    }
  });
}

}  // namespace
}  // namespace lorikeet::kernels
