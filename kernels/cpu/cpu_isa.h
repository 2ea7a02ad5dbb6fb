// Which vector instructions the CPU kernels use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace lorikeet::kernels {

enum class CpuIsa : uint8_t { plain, avx2, avx512, neon };

constexpr std::string_view name_of(CpuIsa isa) {
  constexpr std::string_view names[] = {"plain", "avx2", "avx512", "neon"};
  return names[static_cast<size_t>(isa)];
}

// Floats of a vector; 1 where there are none.
constexpr int32_t lanes_of(CpuIsa isa) {
  constexpr int32_t lanes[] = {1, 8, 16, 4};
  return lanes[static_cast<size_t>(isa)];
}

// The best that this machine has, or the lesser one that the program was built for (CMake's LORIKEET_CPU_ISA: "plain",
// "avx2": to measure and to test what others run). One process uses one: results of different ones differ in their last
// bits. NEON is part of every 64-bit ARM.
CpuIsa best_cpu_isa();

// Whether that is the best one, or a lesser one of the same machine.
bool has_cpu_isa(CpuIsa isa);

// How bytes are multiplied: four products to a lane of 32 bits in one instruction (VNNI, ARM's DotProd), or to 16 bits.
enum class IntegerDot : uint8_t { plain, avx2, avx_vnni, avx512_vnni, neon, neon_dotprod };

constexpr std::string_view name_of(IntegerDot dot) {
  constexpr std::string_view names[] = {"plain", "avx2", "avx_vnni", "avx512_vnni", "neon", "neon_dotprod"};
  return names[static_cast<size_t>(dot)];
}

// Whether best_cpu_isa() permits it and this machine has it; the best one of those. Results of all but the plain one have
// the same bits.
bool has_integer_dot(IntegerDot dot);
IntegerDot best_integer_dot();

// The inner loops of the CPU are compiled once for each set. A loop `F` has a header with
//   template <CpuIsa> F* NAME_for();  // defined by NAME_simd.cc for every set but plain
// and this picks among those of this architecture: `loop` takes the set as a std::integral_constant. Null for plain, and
// for the sets of other architectures. What calls a loop prepares its operands and shares the work out to threads, and
// runs the plain version where it is null.
// In every loop the arithmetic that makes one number is a fixed sequence, whatever tile or thread it falls into: so a
// row's result does not depend on the batch.
template <class F, class Loop>
F* loop_for([[maybe_unused]] CpuIsa isa, [[maybe_unused]] const Loop& loop) {
#if defined(__x86_64__)
  if (isa == CpuIsa::avx512) return loop(std::integral_constant<CpuIsa, CpuIsa::avx512>());
  if (isa == CpuIsa::avx2) return loop(std::integral_constant<CpuIsa, CpuIsa::avx2>());
#elif defined(__aarch64__)
  if (isa == CpuIsa::neon) return loop(std::integral_constant<CpuIsa, CpuIsa::neon>());
#endif
  return nullptr;
}

}  // namespace lorikeet::kernels
