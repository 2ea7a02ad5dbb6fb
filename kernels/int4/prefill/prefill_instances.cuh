// Instantiates the kernels of prefill.cuh for one element type. Included by one .cu file per type.
#pragma once

#include "kernels/int4/prefill/prefill.cuh"

namespace lorikeet::kernels::int4 {

template <class T>
PrefillVariant prefill_variant(int32_t columns, int32_t scale_block, bool asymmetric) {
  return with_format(scale_block, asymmetric, [columns](auto format) -> PrefillVariant {
    using Format = decltype(format);
    switch (columns) {
      case 64:
        return {prefill<T, Format, 64>, PrefillStage<Format, 64, kPrefillTiles>::kSharedBytes};
      case 80:
        return {prefill<T, Format, 80>, PrefillStage<Format, 80, kPrefillTiles>::kSharedBytes};
      case 96:
        return {prefill<T, Format, 96>, PrefillStage<Format, 96, kPrefillTiles>::kSharedBytes};
      default:
        return {prefill<T, Format, 128>, PrefillStage<Format, 128, kPrefillTiles>::kSharedBytes};
    }
  });
}

}  // namespace lorikeet::kernels::int4
