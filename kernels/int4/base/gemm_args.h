// What a product with an int4 weight takes, whichever kernel computes it (kernels/int4/int4_gemm_cuda.h).
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/int4/base/int4_lora.h"

namespace lorikeet::kernels {

// Up to so many tokens go through kernels that read the packed weight once.
inline constexpr int32_t kInt4DecodeRows = 64;

// x of up to kNormRows rows as the RMSNorm of a residual stream in float, by the product itself
// (kernels/layer/rms_norm_cuda.h has the definition, and gives the same bits). All pointers are to device memory; rows
// are x_size long.
inline constexpr int32_t kNormRows = 2;
struct NormPrologue {
  const float* residual = nullptr;  // null: x is given
  const void* delta = nullptr;      // of `dtype`, or null: nothing is added
  float* residual_out = nullptr;    // residual + delta, which does not overlap `residual`; null: nobody asks
  const float* weight = nullptr;    // [x_size]
  float epsilon = 0;
};

// All pointers are to device memory; x and y rows are 16-byte aligned.
struct Int4GemmArgs {
  const void* x = nullptr;   // [m, x_size] of `dtype`
  int64_t x_stride = 0;      // elements between rows, a multiple of 8
  Dtype dtype = Dtype::f16;  // of x and y: F16 or BF16
  void* y = nullptr;         // [m, n] of `dtype`; with silu_mul [m, n / 2]
  int64_t y_stride = 0;      // elements between rows
  int32_t m = 0;
  const float* bias = nullptr;  // [n] or null
  bool silu_mul = false;        // paired weights only: y = silu(gate) * up
  NormPrologue norm;            // only where takes_norm; then x is not read
  // The kernel in front in the stream is a product of the same Int4Gemm: blocks may begin beside the last of it.
  bool follows_product = false;
  // Or null; only where Int4Gemm::takes_lora says so, and without a bias. Completes the outputs (of gate and up before
  // SiLU-mul), each rounded to `dtype` before its delta is added.
  const Int4Lora* lora = nullptr;
};

}  // namespace lorikeet::kernels
