// The device version of the MLP's activation: out = silu(gate) * up, silu(x) = x / (1 + exp(-x)).
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

// All pointers are to device memory.
struct SiluMulArgs {
  const void* gate = nullptr;  // [tokens, width] of `dtype`, rows `stride` apart
  const void* up = nullptr;    // likewise
  int64_t stride = 0;          // elements, a multiple of 8
  void* out = nullptr;         // [tokens, width] of `dtype`
  Dtype dtype = Dtype::f16;    // F16 or BF16
  int32_t tokens = 0;
  int32_t width = 0;  // a multiple of 8
};

void silu_mul_cuda(const SiluMulArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
