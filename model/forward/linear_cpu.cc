#include "model/forward/linear_cpu.h"

#include "kernels/dense/dense_gemm.h"
#include "kernels/int4/int4_gemm.h"
#include "kernels/int4/int8_gemm.h"

namespace lorikeet::model {

int32_t outputs_of(const LinearWeights& linear) {
  return std::visit([](const auto& weight) { return weight.n; }, linear.weight);
}

void linear_cpu(std::span<const LinearCall> calls, const float* x, int32_t m, bool int8, kernels::ThreadPool& pool) {
  std::vector<kernels::Int4Product> products;
  for (const LinearCall& call : calls) {
    const int32_t n = outputs_of(*call.linear);
    if (const auto int4 = call.linear->int4()) {
      products.push_back({*int4, call.y, n});
    } else {
      const auto& dense = std::get<kernels::DenseWeight>(call.linear->weight);
      kernels::dense_gemm_cpu(dense, x, dense.k, m, call.y, n, pool);
    }
  }
  int8 ? kernels::int8_gemm_cpu(products, x, m, pool) : kernels::int4_gemm_cpu(products, x, m, pool);
  for (const LinearCall& call : calls) {
    const int32_t n = outputs_of(*call.linear);
    const auto int4 = call.linear->int4();
    const int32_t inputs = int4 ? int4->x_size : std::get<kernels::DenseWeight>(call.linear->weight).k;
    kernels::lora_cpu(call.adapters, x, inputs, call.y, n, pool);
    const std::vector<float>& bias = call.linear->bias;
    if (bias.empty()) continue;
    for (int32_t j = 0; j < m; ++j) {
      float* row = call.y + static_cast<int64_t>(j) * n;
      for (int32_t i = 0; i < n; ++i) row[i] += bias[static_cast<size_t>(i)];
    }
  }
}

}  // namespace lorikeet::model
