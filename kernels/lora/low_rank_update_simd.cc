#include "kernels/lora/low_rank_update_simd.h"

#include "kernels/cpu/exponential_simd.h"
#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

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

template <>
LowRankUpdateLoop* low_rank_update_for<kSimdIsa>() {
  return &low_rank_update<Simd>;
}

}  // namespace lorikeet::kernels
