// Instantiates the kernels of prefill_pairs.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4/prefill/prefill_pairs.cuh"

namespace lorikeet::kernels::int4 {

template <class T>
PrefillVariant prefill_pairs_variant(int32_t columns, int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [columns](auto format) -> PrefillVariant {
    using Format = decltype(format);
    switch (columns) {
      case 64:
        return {prefill_pairs<T, Format, 64>, PrefillStage<Format, 64, kPairTiles>::kSharedBytes};
      case 80:
        return {prefill_pairs<T, Format, 80>, PrefillStage<Format, 80, kPairTiles>::kSharedBytes};
      case 96:
        return {prefill_pairs<T, Format, 96>, PrefillStage<Format, 96, kPairTiles>::kSharedBytes};
      default:
        return {prefill_pairs<T, Format, 128>, PrefillStage<Format, 128, kPairTiles>::kSharedBytes};
    }
  });
}

}  // namespace lorikeet::kernels::int4
