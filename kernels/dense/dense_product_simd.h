// The vectorised loop of products with unquantised weights on the CPU.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/product_cpu.h"
#include "kernels/dense/dense_weight.h"

namespace lorikeet::kernels {

// Outputs [n_begin, n_end).
using DenseProductLoop = void(const DenseWeight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end);

template <CpuIsa>
DenseProductLoop* dense_product_for();
template <>
DenseProductLoop* dense_product_for<CpuIsa::avx2>();
template <>
DenseProductLoop* dense_product_for<CpuIsa::avx512>();
template <>
DenseProductLoop* dense_product_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
DenseProductLoop* dense_product_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
