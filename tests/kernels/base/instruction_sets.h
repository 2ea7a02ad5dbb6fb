// The instruction sets to run a test on.
#pragma once

#include <vector>

#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::tests {

// Those with vectors that this machine has.
inline std::vector<kernels::CpuIsa> instruction_sets() {
  using kernels::CpuIsa;
  std::vector<CpuIsa> sets = {CpuIsa::avx2, CpuIsa::avx512, CpuIsa::neon};
  std::erase_if(sets, [](CpuIsa isa) { return !kernels::has_cpu_isa(isa); });
  return sets;
}

}  // namespace lorikeet::tests
