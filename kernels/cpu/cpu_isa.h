// Which vector instructions the CPU kernels use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lorikeet::kernels {

enum class CpuIsa : uint8_t { plain, avx2, avx512 };

constexpr std::string_view name_of(CpuIsa isa) {
  constexpr std::string_view names[] = {"plain", "avx2", "avx512"};
  return names[static_cast<size_t>(isa)];
}

// Floats of a vector; 1 where there are none.
constexpr int32_t lanes_of(CpuIsa isa) {
  constexpr int32_t lanes[] = {1, 8, 16};
  return lanes[static_cast<size_t>(isa)];
}

// The best that this machine has. One process uses one: results of different ones differ in their last bits.
CpuIsa best_cpu_isa();

// The inner loops of the CPU are compiled once for each set. A loop `F` has a header with
//   template <CpuIsa> F* NAME_for();  // defined by NAME_simd.cc for avx2 and avx512
// and this picks among its instances: null for plain, and where this machine's architecture has no such sets. What
// calls a loop prepares its operands and shares the work out to threads, and runs the plain version where it is null.
// In every loop the arithmetic that makes one number is a fixed sequence, whatever tile or thread it falls into: so a
// row's result does not depend on the batch.
template <class F>
F* loop_for(CpuIsa isa, F* (*avx2)(), F* (*avx512)()) {
  if (isa == CpuIsa::avx512) return avx512();
  return isa == CpuIsa::avx2 ? avx2() : nullptr;
}

}  // namespace lorikeet::kernels
