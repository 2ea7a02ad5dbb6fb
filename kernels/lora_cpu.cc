#include <cstring>

#include "kernels/dense_gemm.h"
#include "kernels/lora.h"

namespace lorikeet::kernels {
namespace {

DenseWeight float_weight(const float* data, int32_t n, int32_t k) {
  DenseWeight weight;
  weight.n = n;
  weight.k = k;
  weight.dtype = Dtype::f32;
  weight.data = data;
  return weight;
}

void apply_group(const LoraGroup& group, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                 ThreadPool& pool) {
  const LoraWeights& w = group.weights;
  const auto m = static_cast<int32_t>(group.rows.size());
  std::vector<float> inputs(static_cast<size_t>(m) * static_cast<size_t>(w.inputs));
  std::vector<float> low(static_cast<size_t>(m) * static_cast<size_t>(w.rank));
  std::vector<float> delta(static_cast<size_t>(m) * static_cast<size_t>(w.outputs));
  for (int32_t i = 0; i < m; ++i) {
    std::memcpy(inputs.data() + static_cast<int64_t>(i) * w.inputs, x + group.rows[static_cast<size_t>(i)] * x_stride,
                static_cast<size_t>(w.inputs) * sizeof(float));
  }
  dense_gemm_cpu(float_weight(w.a, w.rank, w.inputs), inputs.data(), w.inputs, m, low.data(), w.rank, pool);
  dense_gemm_cpu(float_weight(w.b, w.outputs, w.rank), low.data(), w.rank, m, delta.data(), w.outputs, pool);
  for (int32_t i = 0; i < m; ++i) {
    float* out = y + group.rows[static_cast<size_t>(i)] * y_stride;
    const float* add = delta.data() + static_cast<int64_t>(i) * w.outputs;
    for (int32_t n = 0; n < w.outputs; ++n) out[n] += w.scale * add[n];
    if (w.dora_factor == nullptr) continue;
    for (int32_t n = 0; n < w.outputs; ++n) out[n] *= w.dora_factor[n];
  }
}

}  // namespace

void lora_cpu(const std::vector<LoraGroup>& groups, const float* x, int64_t x_stride, float* y, int64_t y_stride,
              ThreadPool& pool) {
  for (const LoraGroup& group : groups) apply_group(group, x, x_stride, y, y_stride, pool);
}

}  // namespace lorikeet::kernels
