// Instantiates the kernels of int4_stream_kernels.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4/stream/kernels.cuh"

namespace lorikeet::kernels::int4 {

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

template <class T>
GroupStreamKernel group_stream_kernel(int32_t m, int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [m](auto format) -> GroupStreamKernel {
    using Format = decltype(format);
    switch (group_stream_columns(m)) {
      case 8:
        return stream_groups<T, Format, 8>;
      case 16:
        return stream_groups<T, Format, 16>;
      case 32:
        return stream_groups<T, Format, 32>;
      case 48:
        return stream_groups<T, Format, 48>;
      default:
        return stream_groups<T, Format, 64>;
    }
  });
}

}  // namespace lorikeet::kernels::int4
