// Products with an int4 weight of activations that are rounded to 8 bits: less exact, and faster where a machine
// multiplies bytes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/int4/int4_gemm.h"

namespace lorikeet::kernels {

// As int4_gemm_cpu (kernels/int4/int4_gemm.h), but x is rounded in groups (kernels/int4/int8_inputs.h) and multiplied in
// integers. A row of y has the same bits whatever m, the number of threads and `dot`, plain aside. dot: one that this
// machine has.
void int8_gemm_cpu(std::span<const Int4Product> products, const float* x, int32_t m, ThreadPool& pool,
                   IntegerDot dot = best_integer_dot());

// The plain version: one thread, one multiplication at a time.
void int8_gemm_plain(const Int4View& weight, const float* x, int32_t m, float* y, int64_t y_stride);

}  // namespace lorikeet::kernels
