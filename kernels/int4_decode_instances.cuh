// Instantiates the decode kernels for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4_decode.cuh"

namespace lorikeet::kernels::int4 {

template <class T, int kTiles>
DecodeKernel decode_kernel_of(int32_t scale_block, bool asymmetric) {
  if (scale_block == kUnitInputs) {
    return asymmetric ? decode<T, kTiles, kUnitInputs, true> : decode<T, kTiles, kUnitInputs, false>;
  }
  return asymmetric ? decode<T, kTiles, kSubBlock, true> : decode<T, kTiles, kSubBlock, false>;
}

template <class T>
DecodeKernel decode_kernel(int32_t column_tiles, int32_t scale_block, bool asymmetric) {
  return column_tiles == 1 ? decode_kernel_of<T, 1>(scale_block, asymmetric)
                           : decode_kernel_of<T, 2>(scale_block, asymmetric);
}

template <class T>
DecodeKernel add_slabs_kernel() {
  return add_slabs<T>;
}

}  // namespace lorikeet::kernels::int4
