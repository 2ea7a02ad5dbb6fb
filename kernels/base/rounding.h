// Whole parts of non-negative integers.
#pragma once

namespace lorikeet::kernels {

template <class Int>
constexpr Int divide_up(Int value, Int divisor) {
  return (value + divisor - 1) / divisor;
}

template <class Int>
constexpr Int round_up(Int value, Int multiple) {
  return divide_up(value, multiple) * multiple;
}

}  // namespace lorikeet::kernels
