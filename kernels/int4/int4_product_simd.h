// The vectorised loop of the int4 product on the CPU, and the order in which it takes activations.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/product_cpu.h"
#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::kernels {

// A run of an int4 weight is taken in blocks: as many as fit of 8 * lanes inputs, then of half as many, down to 32.
// Within a block of B inputs the nibbles of the same place in their 4-byte words go together: the activation for
// element i of the block in nibble order is x[8 * (i % (B / 8)) + i / (B / 8)].
constexpr int32_t nibble_block(int32_t remaining, int32_t lanes) {
  int32_t block = 8 * lanes;
  while (block > remaining) block /= 2;
  return block;
}

// Outputs [n_begin, n_end). x is in nibble order.
using Int4ProductLoop = void(const Int4Weight& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end);

template <CpuIsa>
Int4ProductLoop* int4_product_for();
template <>
Int4ProductLoop* int4_product_for<CpuIsa::avx2>();
template <>
Int4ProductLoop* int4_product_for<CpuIsa::avx512>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
Int4ProductLoop* int4_product_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
