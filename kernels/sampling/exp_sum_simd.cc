#include "kernels/sampling/exp_sum_simd.h"

#include "kernels/cpu/exponential_simd.h"
#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

template <class V>
float exp_sum(const float* x, int64_t count, float max) {
  typename V::F sum = V::zero();
  for_vectors<V>(0, count, [&](int64_t i, int64_t lanes) {
    const typename V::F e = exponential<V>(V::sub(V::load_first(x + i, lanes), V::set(max)));
    sum = V::add(sum, V::keep_first(e, lanes, V::zero()));
  });
  return V::sum(sum);
}

}  // namespace

template <>
ExpSumLoop* exp_sum_for<kSimdIsa>() {
  return &exp_sum<Simd>;
}

}  // namespace lorikeet::kernels
