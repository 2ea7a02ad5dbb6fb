#include "kernels/dense_gemm.h"
#include "kernels/gemm_rows.h"

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
  const GemmRows* rows = gemm_rows_of(best_cpu_isa());
  if (rows == nullptr) return dense_gemm_plain(weight, x, x_stride, m, y, y_stride);
  pool.parallel_for(weight.n, kGemmRowGrain,
                    [&](int64_t begin, int64_t end) { rows->dense(weight, x, x_stride, m, y, y_stride, begin, end); });
}

}  // namespace lorikeet::kernels
