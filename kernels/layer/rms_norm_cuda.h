// The device version of RMSNorm, fused with the addition to the residual stream that comes before it.
// Definition: transformers, Qwen2RMSNorm: y = weight * x / sqrt(mean(x^2) + eps).
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

inline constexpr int32_t kMaxNormWidth = 16384;

// All pointers are to device memory. The residual stream is kept in float.
struct AddRmsNormArgs {
  float* residual = nullptr;      // [tokens, width], in and out: residual += delta
  float* residual_out = nullptr;  // [tokens, width] or null: with `delta`, where the sum goes instead
  const void* delta = nullptr;    // [tokens, width] of `dtype`, or null: nothing is added
  const float* weight = nullptr;  // [width]
  float epsilon = 0;
  const int32_t* rows =
      nullptr;               // [tokens] or null: output i is the norm of residual row rows[i]; with `delta` null only
  void* out = nullptr;       // [tokens, width] of `dtype`
  Dtype dtype = Dtype::f16;  // F16 or BF16
  int32_t tokens = 0;
  int32_t width = 0;         // a multiple of 8, at most kMaxNormWidth
  uint32_t* done = nullptr;  // or null: where every row adds 1 when it is written
};

// A row's result does not depend on the other rows.
void add_rms_norm_cuda(const AddRmsNormArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
