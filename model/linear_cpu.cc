#include "model/linear_cpu.h"

#include <algorithm>

#include "kernels/dense_gemm.h"
#include "kernels/int4_gemm.h"

namespace lorikeet::model {

BatchAdapters::BatchAdapters(const std::vector<const Adapter*>& adapter_of_token) {
  for (size_t t = 0; t < adapter_of_token.size(); ++t) {
    const Adapter* adapter = adapter_of_token[t];
    if (adapter == nullptr) continue;
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) { return g.adapter == adapter; });
    if (group == groups_.end()) group = groups_.insert(groups_.end(), Group{adapter, {}});
    group->tokens.push_back(static_cast<int32_t>(t));
  }
}

std::vector<kernels::LoraGroup> BatchAdapters::of_projection(int32_t layer, Projection p) const {
  std::vector<kernels::LoraGroup> result;
  for (const Group& group : groups_) {
    const auto& pair = group.adapter->layers[static_cast<size_t>(layer)][static_cast<size_t>(p)];
    if (pair) result.push_back({lora_weights(*pair), group.tokens});
  }
  return result;
}

std::vector<kernels::LoraGroup> BatchAdapters::of_lm_head(const std::vector<int32_t>& tokens) const {
  std::vector<kernels::LoraGroup> result;
  for (const Group& group : groups_) {
    if (!group.adapter->lm_head) continue;
    kernels::LoraGroup rows{lora_weights(*group.adapter->lm_head), {}};
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (std::binary_search(group.tokens.begin(), group.tokens.end(), tokens[i]))
        rows.rows.push_back(static_cast<int32_t>(i));
    }
    if (!rows.rows.empty()) result.push_back(std::move(rows));
  }
  return result;
}

void BatchAdapters::add_embedding(const int32_t* ids, float* out) const {
  for (const Group& group : groups_) {
    if (!group.adapter->embedding) continue;
    const LoraPair& pair = *group.adapter->embedding;
    for (const int32_t token : group.tokens) {
      float* row = out + static_cast<int64_t>(token) * pair.outputs;
      for (int32_t n = 0; n < pair.outputs; ++n) {
        float sum = 0;
        for (int32_t r = 0; r < pair.rank; ++r) {
          sum += pair.b[static_cast<size_t>(n) * static_cast<size_t>(pair.rank) + static_cast<size_t>(r)] *
                 pair.a[static_cast<size_t>(r) * static_cast<size_t>(pair.inputs) + static_cast<size_t>(ids[token])];
        }
        row[n] += pair.scale * sum;
      }
    }
  }
}

kernels::LoraWeights lora_weights(const LoraPair& pair) {
  kernels::LoraWeights weights;
  weights.a = pair.a.data();
  weights.b = pair.b.data();
  weights.dora_factor = pair.dora_factor.empty() ? nullptr : pair.dora_factor.data();
  weights.rank = pair.rank;
  weights.inputs = pair.inputs;
  weights.outputs = pair.outputs;
  weights.scale = pair.scale;
  return weights;
}

int32_t outputs_of(const LinearWeights& linear) {
  return std::visit([](const auto& weight) { return weight.n; }, linear.weight);
}

void linear_cpu(const LinearWeights& linear, const std::vector<kernels::LoraGroup>& adapters, const float* x, int32_t m,
                float* y, kernels::ThreadPool& pool) {
  const int32_t n = outputs_of(linear);
  int32_t inputs = 0;
  if (const auto* int4 = std::get_if<kernels::Int4Weight>(&linear.weight)) {
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
