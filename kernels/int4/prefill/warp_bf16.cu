#include "kernels/int4/prefill/warp_instances.cuh"

namespace lorikeet::kernels::int4 {

template WarpPrefillKernel warp_prefill_kernel<__nv_bfloat16>(int32_t columns, int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
