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

// The best that this machine has, or the lesser one that LORIKEET_CPU_ISA names ("plain", "avx2": to measure and to test
// what others run). One process uses one: results of different ones differ in their last bits.
CpuIsa best_cpu_isa();

// How bytes are multiplied: four products to a lane of 32 bits in one instruction, or by pairs to 16 bits.
enum class IntegerDot : uint8_t { plain, avx2, avx_vnni, avx512_vnni };

constexpr std::string_view name_of(IntegerDot dot) {
  constexpr std::string_view names[] = {"plain", "avx2", "avx_vnni", "avx512_vnni"};
  return names[static_cast<size_t>(dot)];
}

// Whether this machine has it, LORIKEET_CPU_ISA permitting; the best that it has. Results of all but the plain one have
// the same bits.
bool has_integer_dot(IntegerDot dot);
IntegerDot best_integer_dot();

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
