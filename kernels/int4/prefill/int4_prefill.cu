#include "kernels/int4/prefill/int4_prefill.h"

#include "kernels/base/cuda_check.h"
#include "kernels/base/rounding.h"
#include "kernels/cuda/element_dispatch.cuh"
#include "kernels/int4/base/launch.cuh"
#include "kernels/int4/prefill/prefill.cuh"
#include "kernels/int4/prefill/prefill_pairs.cuh"

namespace lorikeet::kernels {

bool int4_prefill_available() {
  cudaFuncAttributes attributes{};
  LORIKEET_CHECK_CUDA(
      cudaFuncGetAttributes(&attributes, int4::prefill_variant<__half>(128, int4::kUnitInputs, false).kernel));
  return attributes.sharedSizeBytes > 0;
}

void int4_prefill(const PackedInt4Weight& weight, const Int4GemmArgs& args, const Int4PrefillShape& shape,
                  const Int4PrefillScratch& scratch, const Stream& stream) {
  int4::PrefillParams p{};
  p.out = int4::output_params(weight, args);
  p.wide = int4::takes_wide_stores(p.out);
  p.m = args.m;
  p.tiles = weight.tiles;
  p.column_areas = divide_up(args.m, shape.columns);
  p.division = int4_prefill_division(weight, args.m, shape);
  p.look_first = !p.division.equal_parts();  // those end together
  p.sums = scratch.sums.as<float4>();
  p.arrived = scratch.arrived.as<int>();
  const int32_t blocks = shape.clusters * shape.cluster;
  CHECK_LE(static_cast<uint64_t>(blocks) * sizeof(int), scratch.arrived.bytes());
  const CUtensorMap weight_map = int4::map_of_weight(weight, int4::kPrefillTiles / shape.cluster);
  const CUtensorMap x_map = int4::map_of_x(args, weight.k, shape.columns);
  with_activation_type(args.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    p.out.factor *= int4::PairScale<T>::kFactor;
    const auto variant_of = shape.cluster == 1 ? int4::prefill_variant<T> : int4::prefill_pairs_variant<T>;
    const int4::PrefillVariant variant = variant_of(shape.columns, weight.scale_block, weight.asymmetric);
    LORIKEET_CHECK_CUDA(
        cudaFuncSetAttribute(variant.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, variant.shared_bytes));
    device::LaunchShape launch;
    launch.blocks = static_cast<unsigned>(blocks);
    launch.cluster = static_cast<unsigned>(shape.cluster);
    launch.threads = int4::kPrefillThreads;
    launch.shared_bytes = static_cast<size_t>(variant.shared_bytes);
    launch.overlap = true;
    device::launch(variant.kernel, launch, stream.handle(), p, weight_map, x_map);
  });
}

}  // namespace lorikeet::kernels
