// Activations in 8 bits for products with int4 weights on the CPU: rounded in groups, multiplied in integers.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/product_cpu.h"
#include "kernels/int4/int4_view.h"

namespace lorikeet::kernels {

// Inputs that share a scale, in the order of the stored k: the largest of them by magnitude is 127 or -127 times it.
inline constexpr int32_t kInt8Group = 32;

// Rounds x [kInt8Group] to q (to the nearest, ties to even), so that x is about q times the result; 0 where all are.
float round_to_int8(const float* x, int8_t* q);

// A run of an int4 weight is taken in blocks: as many as fit of 128 inputs, then of 64, then of 32. The bytes of a block
// lie as its nibbles do in vectors of 32 bytes (kernels/int4/int8_product_simd.cc), such that a lane of 4 bytes holds
// inputs of one group in all vectors of the block. A prepared row is, in this order:
//   weight.k bytes;
//   for each block 8 floats: the scales of the lanes' groups;
//   for each run 8 floats: the sums, lane by lane, of its rounded inputs.
struct Int8Inputs {
  // Floats of a prepared row.
  static int32_t row_size(const Int4View& weight);
  // x: weight.k inputs in the order of the stored k.
  static void prepare(const Int4View& weight, const float* x, float* row);

  static constexpr int32_t kLanes = 8;
  static int32_t blocks_of(const Int4View& weight);
  static int32_t block_of(int32_t remaining) { return remaining >= 128 ? 128 : remaining >= 64 ? 64 : 32; }
};

// Outputs [n_begin, n_end) of rows as Int8Inputs prepares them.
using Int8ProductLoop = void(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end);

template <IntegerDot>
Int8ProductLoop* int8_product_for();
template <>
Int8ProductLoop* int8_product_for<IntegerDot::avx2>();
template <>
Int8ProductLoop* int8_product_for<IntegerDot::avx_vnni>();
template <>
Int8ProductLoop* int8_product_for<IntegerDot::avx512_vnni>();
template <>
Int8ProductLoop* int8_product_for<IntegerDot::neon>();
template <>
Int8ProductLoop* int8_product_for<IntegerDot::neon_dotprod>();

// Null where there is none for `dot`. All give the same bits.
Int8ProductLoop* int8_product_loop(IntegerDot dot);

}  // namespace lorikeet::kernels
