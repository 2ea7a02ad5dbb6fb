#include <vector>

#include "kernels/cpu/product_cpu.h"
#include "kernels/int4/int4_gemm.h"
#include "kernels/int4/int4_product_simd.h"
#include "kernels/int4/run_products.h"

namespace lorikeet::kernels {

void dequantize_row(const Int4View& weight, int32_t n, float* w) {
  const uint8_t* q = weight.q.data() + static_cast<int64_t>(n) * (weight.k / 2);
  for (int32_t run = 0; run < weight.runs(); ++run) {
    const auto at = static_cast<size_t>(static_cast<int64_t>(run) * weight.n + n);
    for (int32_t k = weight.run_begin[static_cast<size_t>(run)]; k < weight.run_begin[static_cast<size_t>(run) + 1];
         ++k) {
      const int value = k % 2 == 0 ? q[k / 2] & 15 : q[k / 2] >> 4;
      w[k] = weight.scale[at] * static_cast<float>(value - weight.zero[at]);
    }
  }
}

void int4_gemm_plain(const Int4View& weight, const float* x, int32_t m, float* y, int64_t y_stride) {
  std::vector<float> inputs(static_cast<size_t>(weight.k)), w(static_cast<size_t>(weight.k));
  for (int32_t j = 0; j < m; ++j) {
    const float* row = x + static_cast<int64_t>(j) * weight.x_size;
    if (!weight.permutation.empty()) {
      take_inputs(weight, row, inputs.data());
      row = inputs.data();
    }
    for (int32_t n = 0; n < weight.n; ++n) {
      dequantize_row(weight, n, w.data());
      float sum = 0;
      for (int32_t k = 0; k < weight.k; ++k) sum += w[static_cast<size_t>(k)] * row[k];
      y[j * y_stride + n] = sum;
    }
  }
}

void int4_gemm_cpu(const Int4View& weight, const float* x, int32_t m, float* y, int64_t y_stride, ThreadPool& pool,
                   CpuIsa isa) {
  const Int4Product product = {weight, y, y_stride};
  int4_gemm_cpu({&product, 1}, x, m, pool, isa);
}

void int4_gemm_cpu(std::span<const Int4Product> products, const float* x, int32_t m, ThreadPool& pool, CpuIsa isa) {
  Int4ProductLoop* const loop = int4_product_loop(isa);
  if (loop == nullptr) {
    for (const Int4Product& p : products) int4_gemm_plain(p.weight, x, m, p.y, p.y_stride);
    return;
  }
  run_products(
      products, x, m, pool, [&](const Int4View& weight) { return Int4Inputs::row_size(weight, isa); },
      [&](const Int4View& weight, const float* from, float* row) { Int4Inputs::prepare(weight, isa, from, row); },
      loop);
}

Int4ProductLoop* int4_product_loop(CpuIsa isa) {
  return loop_for<Int4ProductLoop>(isa, [](auto set) { return int4_product_for<set()>(); });
}

}  // namespace lorikeet::kernels
