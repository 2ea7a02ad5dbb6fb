#include "kernels/int4/decode/instances.cuh"

namespace lorikeet::kernels::int4 {

template DecodeKernel decode_kernel<__nv_bfloat16, DecodeLora::of_tokens>(int32_t scale_block, bool asymmetric);
template DecodeKernel decode_kernel<__nv_bfloat16, DecodeLora::of_one_token>(int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
