// The int4 product for many tokens in one kernel, on devices that have Hopper's warpgroup steps. Used by
// kernels/int4/int4_gemm_cuda.h.
#pragma once

#include "kernels/int4/base/gemm_args.h"
#include "kernels/int4/base/packed_weight.h"

namespace lorikeet::kernels {

// Whether the kernel was compiled for this device.
bool int4_prefill_available();

// Any m > 0. x is not permuted: where the weight has a permutation, args.x must be in the order of the stored inputs.
// A row's result does not depend on the other rows, but on m, by which the sums are divided.
void int4_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
