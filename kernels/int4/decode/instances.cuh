// Instantiates the kernels of int4_decode_kernels.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4/decode/kernels.cuh"

namespace lorikeet::kernels::int4 {

template <class T, DecodeLora kLora>
DecodeKernel decode_kernel(int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric,
                     [](auto format) -> DecodeKernel { return decode<T, decltype(format), kLora>; });
}

}  // namespace lorikeet::kernels::int4
