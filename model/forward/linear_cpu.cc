#include "model/forward/linear_cpu.h"

#include "kernels/dense/dense_gemm.h"
#include "kernels/int4/int4_gemm.h"

namespace lorikeet::model {

int32_t outputs_of(const LinearWeights& linear) {
  return std::visit([](const auto& weight) { return weight.n; }, linear.weight);
}

void linear_cpu(const LinearWeights& linear, const std::vector<kernels::LoraGroup>& adapters, const float* x, int32_t m,
                float* y, kernels::ThreadPool& pool) {
  const int32_t n = outputs_of(linear);
  int32_t inputs = 0;
  if (const auto int4 = linear.int4()) {
    inputs = int4->x_size;
    kernels::int4_gemm_cpu(*int4, x, m, y, n, pool);
  } else {
    const auto& dense = std::get<kernels::DenseWeight>(linear.weight);
    inputs = dense.k;
    kernels::dense_gemm_cpu(dense, x, dense.k, m, y, n, pool);
  }
  kernels::lora_cpu(adapters, x, inputs, y, n, pool);
  if (linear.bias.empty()) return;
  for (int32_t j = 0; j < m; ++j) {
    float* row = y + static_cast<int64_t>(j) * n;
    for (int32_t i = 0; i < n; ++i) row[i] += linear.bias[static_cast<size_t>(i)];
  }
}

}  // namespace lorikeet::model
