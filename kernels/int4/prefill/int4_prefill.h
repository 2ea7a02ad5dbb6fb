// The int4 product for many tokens in one kernel, on devices that have Hopper's warpgroup steps. Used by
// kernels/int4/int4_gemm_cuda.h.
#pragma once

#include <span>

#include "kernels/base/device.h"
#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {

// Whether the kernel was compiled for this device.
bool int4_prefill_available();

// A block computes 128 outputs of `columns` tokens; `cluster` blocks divide k.
struct Int4PrefillShape {
  int32_t columns = 256;
  int32_t cluster = 1;
};

// All there are, for benchmarks that compare them, and whether a weight has enough inputs for one.
std::span<const Int4PrefillShape> int4_prefill_shapes();
bool int4_prefill_fits(const PackedInt4Weight& weight, const Int4PrefillShape& shape);

// The one that should take the least time, by costs as they were seen on an H200: the larger blocks read less, others
// leave fewer multiprocessors idle.
Int4PrefillShape shape_int4_prefill(const PackedInt4Weight& weight, int32_t m, int32_t multiprocessors);

// Any m > 0. x is not permuted: where the weight has a permutation, args.x must be in the order of the stored inputs.
// A row's result does not depend on the other rows, but on the shape, by which the sums are divided.
void int4_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4PrefillShape& shape,
                  const Stream& stream);

}  // namespace lorikeet::kernels
