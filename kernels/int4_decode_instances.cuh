// Instantiates the kernels of int4_decode_kernels.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4_decode_kernels.cuh"

namespace lorikeet::kernels::int4 {

template <class T>
DecodeKernel decode_kernel(int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric,
                     [](auto format) -> DecodeKernel { return decode<T, decltype(format), false>; });
}

template <class T>
DecodeKernel decode_lora_kernel(int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric,
                     [](auto format) -> DecodeKernel { return decode<T, decltype(format), true>; });
}

}  // namespace lorikeet::kernels::int4
