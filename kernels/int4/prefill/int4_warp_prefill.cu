#include "kernels/int4/prefill/int4_warp_prefill.h"

#include "kernels/base/rounding.h"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/cuda/overlap_launch.cuh"
#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/prefill/warp_prefill.cuh"

namespace lorikeet::kernels {

void int4_warp_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4WarpPrefillShape& shape,
                       const Int4WarpPrefillScratch& scratch, const Stream& stream) {
  CHECK_LE(shape.sum_bytes, scratch.sums.bytes());
  auto p = int4::common_params<int4::WarpPrefillParams>(weight, args);
  p.area_steps = divide_up(weight.k, int4::kStepInputs);
  p.column_areas = divide_up(args.m, shape.columns);
  p.steps = static_cast<int64_t>(divide_up(weight.tiles, int4::kAreaTiles)) * p.column_areas * p.area_steps;
  p.sums = scratch.sums.as<float4>();
  p.arrived = scratch.arrived.as<int>();
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    p.out.factor *= int4::PairScale<T>::kFactor;
    const int4::WarpPrefillKernel kernel =
        int4::warp_prefill_kernel<T>(shape.columns, weight.scale_block, weight.asymmetric);
    int4::allow_shared_memory(reinterpret_cast<const void*>(kernel), shape.bytes);
    device::launch_overlapped(kernel, dim3(static_cast<unsigned>(shape.blocks)), int4::kWarpPrefillThreads, shape.bytes,
                              stream.handle(), p);
  });
}

}  // namespace lorikeet::kernels
