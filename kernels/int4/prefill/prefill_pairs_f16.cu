#include "kernels/int4/prefill/prefill_pairs_instances.cuh"

namespace lorikeet::kernels::int4 {

template PrefillVariant prefill_pairs_variant<__half>(int32_t columns, int32_t scale_block, bool asymmetric);

}  // namespace lorikeet::kernels::int4
