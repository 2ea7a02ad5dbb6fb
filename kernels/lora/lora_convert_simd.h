// The vectorised conversion of adapters' weights.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/cpu/cpu_isa.h"

namespace lorikeet::kernels {

// values[0 .. count) of the type `from`, F32, F16 or BF16, as another one of these; nearest, ties to even. Either may
// be unaligned.
using LoraConvertLoop = void(const void* values, Dtype from, int64_t count, Dtype to, void* out);

template <CpuIsa>
LoraConvertLoop* lora_convert_for();
template <>
LoraConvertLoop* lora_convert_for<CpuIsa::avx2>();
template <>
LoraConvertLoop* lora_convert_for<CpuIsa::avx512>();
template <>
LoraConvertLoop* lora_convert_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
LoraConvertLoop* lora_convert_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
