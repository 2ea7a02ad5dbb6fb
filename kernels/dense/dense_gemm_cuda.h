// Dense matrix products for few tokens: lm_head, and the layers of unquantised checkpoints while decoding.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/base/dtype.h"

namespace lorikeet::kernels {

// out [m, n] = x [m, k] W^T. All pointers are to device memory, 16-byte aligned.
struct DenseGemmArgs {
  const void* x = nullptr;
  int64_t x_stride = 0;          // elements between rows, a multiple of 8
  const void* weight = nullptr;  // [n, k]
  Dtype dtype = Dtype::f16;      // of x and weight: F16 or BF16
  void* out = nullptr;
  int64_t out_stride = 0;        // elements between rows
  Dtype out_dtype = Dtype::f16;  // `dtype` or F32
  int32_t m = 0;
  int32_t n = 0;
  int32_t k = 0;  // a multiple of 8
};

// From here on LibraryGemm is faster (the weights are read once per kDenseGemmRows rows here).
inline constexpr int32_t kDenseGemmRows = 64;

// Any m is correct. A row's result depends neither on m nor on the other rows: the sum over k is always formed in the
// same order, which n and k alone decide.
void dense_gemm_cuda(const DenseGemmArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
