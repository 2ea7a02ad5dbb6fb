#include "kernels/int4/stream/instances.cuh"

namespace lorikeet::kernels::int4 {

template StreamKernel stream_kernel<__half>(int32_t m, int32_t scale_block, bool asymmetric);
template GroupStreamKernel group_stream_kernel<__half>(int32_t m, int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
