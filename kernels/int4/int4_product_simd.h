// The vectorised loop of the int4 product on the CPU, and the form in which it takes activations.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/product_cpu.h"
#include "kernels/int4/int4_view.h"

namespace lorikeet::kernels {

// A run of an int4 weight is taken in blocks: as many as fit of 8 * lanes inputs, then of half as many, down to 32.
// Within a block of B inputs the nibbles of the same place in their 4-byte words go together ("nibble order"): element i
// of the block is x[8 * (i % (B / 8)) + i / (B / 8)].
//
// AVX2 takes them in blocks of 64 and 32 in an order of its own (int4_inputs.cc), as it multiplies by what nibbles become
// where they lie: by a constant more, which differs from place to place.
//
// Where the loop scales whole runs (AVX2, NEON), a row has behind its inputs, for each run, a vector of minus the sums of
// the run's inputs, lane by lane; with AVX2 behind it another one, of what those constants add to the products.
struct Int4Inputs {
  // Floats of a prepared row.
  static int32_t row_size(const Int4View& weight, CpuIsa isa);
  // x: weight.k inputs in the order of the stored k.
  static void prepare(const Int4View& weight, CpuIsa isa, const float* x, float* row);
};

// Outputs [n_begin, n_end). x: prepared rows.
using Int4ProductLoop = void(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end);

template <CpuIsa>
Int4ProductLoop* int4_product_for();
template <>
Int4ProductLoop* int4_product_for<CpuIsa::avx2>();
template <>
Int4ProductLoop* int4_product_for<CpuIsa::avx512>();
template <>
Int4ProductLoop* int4_product_for<CpuIsa::neon>();

// Null where there is none for `isa` (kernels/cpu/cpu_isa.h).
Int4ProductLoop* int4_product_loop(CpuIsa isa);

}  // namespace lorikeet::kernels
