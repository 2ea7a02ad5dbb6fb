#include "kernels/int4/int4_product_simd.h"

#include "kernels/cpu/product_simd.h"
#include "kernels/cpu/simd.h"
#if defined(__AVX512F__)
#include "kernels/int4/int4_tile_avx512.h"
#else
#include "kernels/int4/int4_tile_runs.h"
#endif

namespace lorikeet::kernels {
namespace {

// Of AVX2: a tenth faster than its other tiles with 2 or 4 rows, of which those leave single ones.
struct PairTiles {
  static constexpr int kGemvOutputs = Simd::kGemvOutputs;
  static constexpr int kTileOutputs = 4, kTileRows = 2;
};

template <class V, class Tiles, int... Run>
void int4_product_in(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  for_product_tiles<Tiles>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int4_tile<V, outputs(), tile_rows(), Run...>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                                 rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

inline bool has_runs_of(int32_t size, const Int4View& weight) {
  for (int32_t run = 0; run <= weight.runs(); ++run) {
    if (weight.run_begin[static_cast<size_t>(run)] != run * size) return false;
  }
  return true;
}

template <class V>
void int4_product(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  if constexpr (V::kLanes == 8) {
    // The groups of nearly all checkpoints, by loops of a fixed length, which leave more registers.
    constexpr int kRun = 128;
    if (has_runs_of(kRun, weight)) {
      if (rows.m == 2 || rows.m == 4) return int4_product_in<V, PairTiles, kRun>(weight, rows, n_begin, n_end);
      return int4_product_in<V, V, kRun>(weight, rows, n_begin, n_end);
    }
  }
  int4_product_in<V, V>(weight, rows, n_begin, n_end);
}

}  // namespace

template <>
Int4ProductLoop* int4_product_for<kSimdIsa>() {
  return &int4_product<Simd>;
}

}  // namespace lorikeet::kernels
