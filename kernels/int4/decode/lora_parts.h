// A x of the tokens of an int4 product that keeps x, by a kernel in front of it (kernels/int4/decode/lora.cuh).
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/int4/base/gemm_args.h"

namespace lorikeet::kernels::int4 {

inline constexpr int kMostParts = 8;  // of the inputs, as kernels/lora/lora_shrink.cuh defines them

// Queues it: args.lora->turn.parts becomes [parts][m][projections][padded rank]. It takes x when args.lora->x_done says
// so, or when the kernel in front has ended, and has ended itself only when all in front of it has.
void make_lora_parts(const Int4GemmArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels::int4
