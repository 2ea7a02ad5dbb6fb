// Instantiates the kernels of int4_decode_kernels.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4_decode_kernels.cuh"

namespace lorikeet::kernels::int4 {

// f(UnitFormat{}) for the format known at run time.
template <class F>
auto with_format(int32_t scale_block, bool asymmetric, F&& f) {
  if (scale_block == kUnitInputs) {
    return asymmetric ? f(UnitFormat<kUnitInputs, true>{}) : f(UnitFormat<kUnitInputs, false>{});
  }
  return asymmetric ? f(UnitFormat<kSubBlock, true>{}) : f(UnitFormat<kSubBlock, false>{});
}

template <class T>
DecodeKernel decode_kernel(int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [](auto format) -> DecodeKernel {
    using Format = decltype(format);
    constexpr int kPairs = Format::kScaleBlock == kUnitInputs ? 3 : 2;  // as many as registers hold
    return decode<T, Format, kPairs>;
  });
}

template <class T>
StreamKernel stream_kernel(int32_t m, int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [m](auto format) -> StreamKernel {
    using Format = decltype(format);
    switch (stream_columns(m)) {
      case 8:
        return stream<T, Format, WarpTiling<2, 1, 1>>;
      case 16:
        return stream<T, Format, WarpTiling<2, 2, 1>>;
      case 32:
        return stream<T, Format, WarpTiling<2, 4, 1>>;
      default:
        return stream<T, Format, WarpTiling<4, 4, 2>>;
    }
  });
}

}  // namespace lorikeet::kernels::int4
