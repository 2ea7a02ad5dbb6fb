// Products with an unquantised weight.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/dense/dense_weight.h"

namespace lorikeet::kernels {

// y [m, weight.n] = x [m, weight.k] W^T, accumulated in float; rows of x and y are x_stride and y_stride floats apart.
// A row of y has the same bits whatever m and the number of threads.
void dense_gemm_cpu(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y, int64_t y_stride,
                    ThreadPool& pool);

// The plain version, the oracle of the others.
void dense_gemm_plain(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y,
                      int64_t y_stride);

}  // namespace lorikeet::kernels
