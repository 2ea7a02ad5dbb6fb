// The vector type of the instruction set that this file is compiled for, and which set that is. Included by the
// *_simd.cc files alone, each of which is compiled once for every set (kernels/CMakeLists.txt).
#pragma once

#include "kernels/cpu/cpu_isa.h"
#if defined(__AVX512F__)
#include "kernels/cpu/simd_avx512.h"
#elif defined(__AVX2__)
#include "kernels/cpu/simd_avx2.h"
#elif defined(__aarch64__)
#include "kernels/cpu/simd_neon.h"
#endif

namespace lorikeet::kernels {
namespace {

#if defined(__AVX512F__)
using Simd = Avx512;
inline constexpr CpuIsa kSimdIsa = CpuIsa::avx512;
#elif defined(__AVX2__)
using Simd = Avx2;
inline constexpr CpuIsa kSimdIsa = CpuIsa::avx2;
#elif defined(__aarch64__)
using Simd = Neon;
inline constexpr CpuIsa kSimdIsa = CpuIsa::neon;
#endif
static_assert(Simd::kLanes == lanes_of(kSimdIsa));

}  // namespace
}  // namespace lorikeet::kernels
