#include "kernels/layer/silu_mul_simd.h"

#include "kernels/cpu/exponential_simd.h"
#include "kernels/cpu/simd.h"

namespace lorikeet::kernels {
namespace {

template <class V>
void silu_mul(const float* gate, const float* up, int64_t count, float* y) {
  for_vectors<V>(0, count, [&](int64_t i, int64_t lanes) {
    const typename V::F g = V::load_first(gate + i, lanes);
    const typename V::F denominator = V::add(V::set(1), exponential<V>(V::sub(V::zero(), g)));
    V::store_first(y + i, V::mul(V::div(g, denominator), V::load_first(up + i, lanes)), lanes);
  });
}

}  // namespace

template <>
SiluMulLoop* silu_mul_for<kSimdIsa>() {
  return &silu_mul<Simd>;
}

}  // namespace lorikeet::kernels
