// Instantiates the kernels of warp_prefill.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4/prefill/warp_prefill.cuh"

namespace lorikeet::kernels::int4 {

template <class T>
WarpPrefillKernel warp_prefill_kernel(int32_t columns, int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [columns](auto format) -> WarpPrefillKernel {
    using Format = decltype(format);
    switch (columns) {
      case 80:
        return warp_prefill<T, Format, AreaTiling<2, 5>>;
      case 96:
        return warp_prefill<T, Format, AreaTiling<2, 6>>;
      default:
        return warp_prefill<T, Format, AreaTiling<2, 8>>;
    }
  });
}

}  // namespace lorikeet::kernels::int4
