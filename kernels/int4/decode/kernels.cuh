// The kernels that keep x by element type and format of the weight. Included by .cu files; each element type is
// compiled in a file of its own.
#pragma once

#include "kernels/int4/decode/int4_decode.cuh"

namespace lorikeet::kernels::int4 {

using DecodeKernel = void (*)(DecodeParams);
template <class T, DecodeLora kLora>
DecodeKernel decode_kernel(int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
