#include <vector>

#include "kernels/cpu/product_cpu.h"
#include "kernels/int4/int4_gemm.h"
#include "kernels/int4/int4_product_simd.h"

namespace lorikeet::kernels {
namespace {

// x in the order of the stored k: permuted where the weight's rows are sorted, zeros at its padding.
void take_inputs(const Int4View& weight, const float* x, float* out) {
  for (int32_t k = 0; k < weight.k; ++k) {
    const int32_t from = weight.permutation[static_cast<size_t>(k)];
    out[k] = from < 0 ? 0.0F : x[from];
  }
}

}  // namespace

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
  Int4ProductLoop* const product = int4_product_loop(isa);
  if (product == nullptr) return int4_gemm_plain(weight, x, m, y, y_stride);
  ProductInputs inputs(m, Int4Inputs::row_size(weight, isa));
  pool.parallel_for(m, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> taken(weight.permutation.empty() ? 0 : static_cast<size_t>(weight.k));
    for (auto j = static_cast<int32_t>(begin); j < end; ++j) {
      const float* row = x + static_cast<int64_t>(j) * weight.x_size;
      if (!weight.permutation.empty()) {
        take_inputs(weight, row, taken.data());
        row = taken.data();
      }
      Int4Inputs::prepare(weight, isa, row, inputs.row(j));
    }
  });
  const ProductRows rows = {inputs.data(), inputs.stride(), m, y, y_stride};
  share_out_product(weight.n, weight.k, m, pool,
                    [&](int64_t begin, int64_t end) { product(weight, rows, begin, end); });
}

Int4ProductLoop* int4_product_loop(CpuIsa isa) {
#if defined(__x86_64__)
  return loop_for<Int4ProductLoop>(isa, int4_product_for<CpuIsa::avx2>, int4_product_for<CpuIsa::avx512>);
#else
  return nullptr;
#endif
}

}  // namespace lorikeet::kernels
