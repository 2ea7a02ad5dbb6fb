// The dense product for so few tokens that a block keeps x in shared memory, and so many outputs that each processor
// has its share of them: lm_head while decoding. The part of kernels/dense/dense_gemm_cuda.h for these sizes, with its
// bits.
#pragma once

#include "kernels/dense/dense_gemm_cuda.h"

namespace lorikeet::kernels {

inline constexpr int32_t kDenseDecodeRows = 8;

// Whether x of args.m rows finds room in the device's shared memory.
bool dense_decode_fits(const DenseGemmArgs& args);

void dense_decode_cuda(const DenseGemmArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
