// Exponentials, and walks over arrays, with a vector type V (kernels/cpu/simd.h).
// Everything is local to the file that includes this: functions with these instructions must not be shared with others.
#pragma once

#include <cstdint>

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

}  // namespace
}  // namespace lorikeet::kernels
