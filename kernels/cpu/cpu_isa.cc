#include "kernels/cpu/cpu_isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lorikeet::kernels {
namespace {

#if defined(__x86_64__)
CpuIsa machine_isa() {
  __builtin_cpu_init();
  // Every machine with AVX2 has F16C.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return CpuIsa::avx512;
  }
  return avx2 ? CpuIsa::avx2 : CpuIsa::plain;
}
#elif defined(__aarch64__)
CpuIsa machine_isa() {
  return CpuIsa::neon;
}
#else
CpuIsa machine_isa() {
  return CpuIsa::plain;
}
#endif

#if defined(__x86_64__)
// AVX-VNNI: leaf 7, subleaf 1, EAX bit 4. Compilers of this age have no name for it in __builtin_cpu_supports.
bool machine_has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}
#endif

}  // namespace

bool has_integer_dot(IntegerDot dot) {
#if defined(__x86_64__)
  switch (dot) {
    case IntegerDot::plain:
      return true;
    case IntegerDot::avx2:
      return best_cpu_isa() >= CpuIsa::avx2;
    case IntegerDot::avx_vnni:
      return best_cpu_isa() >= CpuIsa::avx2 && best_cpu_isa() == machine_isa() && machine_has_avx_vnni();
    case IntegerDot::avx512_vnni:
      return best_cpu_isa() >= CpuIsa::avx512 && __builtin_cpu_supports("avx512vnni");
    default:
      return false;
  }
#elif defined(__aarch64__)
  if (dot == IntegerDot::neon) return best_cpu_isa() == CpuIsa::neon;
  if (dot == IntegerDot::neon_dotprod) {
    return best_cpu_isa() == CpuIsa::neon && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  }
#endif
  return dot == IntegerDot::plain;
}

IntegerDot best_integer_dot() {
  static const IntegerDot best = [] {
    for (const IntegerDot dot : {IntegerDot::avx512_vnni, IntegerDot::avx_vnni, IntegerDot::avx2,
                                 IntegerDot::neon_dotprod, IntegerDot::neon}) {
      if (has_integer_dot(dot)) return dot;
    }
    return IntegerDot::plain;
  }();
  return best;
}

CpuIsa best_cpu_isa() {
  static const CpuIsa best = [] {
    const CpuIsa machine = machine_isa();
    for (const CpuIsa isa : {CpuIsa::plain, CpuIsa::avx2}) {
      if (name_of(isa) == LORIKEET_CPU_ISA && isa < machine) return isa;
    }
    return machine;
  }();
  return best;
}

bool has_cpu_isa(CpuIsa isa) {
  const CpuIsa best = best_cpu_isa();
  return isa == best || isa == CpuIsa::plain || (isa == CpuIsa::avx2 && best == CpuIsa::avx512);
}

}  // namespace lorikeet::kernels
