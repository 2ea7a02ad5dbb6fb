#include <cstring>

#include "kernels/cpu/product_cpu.h"
#include "kernels/dense/dense_gemm.h"
#include "kernels/dense/dense_product_simd.h"

namespace lorikeet::kernels {

void dense_gemm_plain(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y,
                      int64_t y_stride) {
  for (int32_t j = 0; j < m; ++j) {
    for (int32_t n = 0; n < weight.n; ++n) {
      const void* row = weight.row(n);
      float sum = 0;
      for (int32_t k = 0; k < weight.k; ++k)
        sum += load_float(row, weight.dtype, static_cast<size_t>(k)) * x[j * x_stride + k];
      y[j * y_stride + n] = sum;
    }
  }
}

void dense_gemm_cpu(const DenseWeight& weight, const float* x, int64_t x_stride, int32_t m, float* y, int64_t y_stride,
                    ThreadPool& pool) {
  static DenseProductLoop* const product = dense_product_loop(best_cpu_isa());
  if (product == nullptr) return dense_gemm_plain(weight, x, x_stride, m, y, y_stride);
  ProductInputs inputs(m, weight.k);
  for (int32_t j = 0; j < m; ++j)
    std::memcpy(inputs.row(j), x + j * x_stride, static_cast<size_t>(weight.k) * sizeof(float));
  const ProductRows rows = {inputs.data(), inputs.stride(), m, y, y_stride};
  share_out_product(weight.n, weight.k, m, pool,
                    [&](int64_t begin, int64_t end) { product(weight, rows, begin, end); });
}

DenseProductLoop* dense_product_loop(CpuIsa isa) {
  return loop_for<DenseProductLoop>(isa, [](auto set) { return dense_product_for<set()>(); });
}

}  // namespace lorikeet::kernels
