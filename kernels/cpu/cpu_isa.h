// Which vector instructions the CPU kernels use.
#pragma once

#include <cstdint>
#include <string_view>

namespace lorikeet::kernels {

enum class CpuIsa : uint8_t { plain, avx2, avx512 };

constexpr std::string_view name_of(CpuIsa isa) {
  constexpr std::string_view names[] = {"plain", "avx2", "avx512"};
  return names[static_cast<size_t>(isa)];
}

// The best that this machine has. One process uses one: results of different ones differ in their last bits.
CpuIsa best_cpu_isa();

}  // namespace lorikeet::kernels
