// The int4 product for up to kInt4DecodeRows tokens: how its launch is shaped. Used by kernels/int4/int4_gemm_cuda.h
// and by benchmarks that compare shapes; the result does not depend on the shape.
#pragma once

#include "kernels/int4/base/decode_shape.h"

namespace lorikeet::kernels {

// Whether a block of that shape finds room; what shape_int4_decode chooses without wishes always does.
bool int4_decode_fits(const PackedInt4Weight& weight, int32_t m, const Int4DecodeWish& wish,
                      const Int4DecodeDevice& device);

// Whether the shape that is chosen without other wishes can complete the outputs by adapters.
bool int4_decode_takes_lora(const PackedInt4Weight& weight, int32_t m, const LoraLinear& linear, int32_t max_rank,
                            const Int4DecodeDevice& device);

Int4DecodeShape shape_int4_decode(const PackedInt4Weight& weight, int32_t m, Dtype dtype, const Int4DecodeWish& wish,
                                  const Int4DecodeDevice& device);

// Whether that shape's kernel makes x of a NormPrologue.
bool int4_decode_takes_norm(const PackedInt4Weight& weight, const Int4DecodeShape& shape);

// m up to kInt4DecodeRows. A streaming shape does not permute x: where the weight has a permutation, args.x must be in
// the order of the stored inputs (gather_inputs_cuda). `beside`: the kernel in front is a product whose shape leaves
// room. `late_x`: it waits for other ranks, so that all stages are asked for before x.
void int4_decode(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4DecodeShape& shape,
                 const Stream& stream, bool beside = false, bool late_x = false);

}  // namespace lorikeet::kernels
