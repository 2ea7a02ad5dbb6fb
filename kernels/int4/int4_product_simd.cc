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

template <class V>
void int4_product(const Int4View& weight, const ProductRows& rows, int64_t n_begin, int64_t n_end) {
  for_product_tiles<V>(rows, n_begin, n_end, [&](auto outputs, auto tile_rows, int64_t n, int64_t j) {
    int4_tile<V, outputs(), tile_rows()>(weight, rows.x + j * rows.x_stride, rows.x_stride, n,
                                         rows.y + j * rows.y_stride + n, rows.y_stride);
  });
}

}  // namespace

template <>
Int4ProductLoop* int4_product_for<kSimdIsa>() {
  return &int4_product<Simd>;
}

}  // namespace lorikeet::kernels
