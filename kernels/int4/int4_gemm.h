// Products with an int4 weight.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/int4/int4_view.h"

namespace lorikeet::kernels {

// y [m, weight.n] = x [m, weight.x_size] W^T, accumulated in float. Rows of y are `y_stride` floats apart.
// A row of y has the same bits whatever m and the number of threads: k is walked in one order. isa: one that this machine
// has.
void int4_gemm_cpu(const Int4View& weight, const float* x, int32_t m, float* y, int64_t y_stride, ThreadPool& pool,
                   CpuIsa isa = best_cpu_isa());

// One of several products of the same x.
struct Int4Product {
  Int4View weight;
  float* y = nullptr;  // [m, weight.n], rows y_stride floats apart
  int64_t y_stride = 0;
};

// The same for weights that take the same x (of one x_size): x is prepared once for neighbours whose runs and
// permutation are alike, and the threads are woken once for all outputs.
void int4_gemm_cpu(std::span<const Int4Product> products, const float* x, int32_t m, ThreadPool& pool,
                   CpuIsa isa = best_cpu_isa());

// The plain version, the oracle of the others: one thread, one multiplication at a time.
void int4_gemm_plain(const Int4View& weight, const float* x, int32_t m, float* y, int64_t y_stride);

// w [k] of output n, de-quantised in the order of the stored k.
void dequantize_row(const Int4View& weight, int32_t n, float* w);

}  // namespace lorikeet::kernels
