#include "model/forward/batch_adapters_cpu.h"

#include <algorithm>
#include <utility>

namespace lorikeet::model {

SlotPair::SlotPair(const LoraPair& pair)
    : rank_(pair.rank),
      inputs_(pair.inputs),
      outputs_(pair.outputs),
      scale_(pair.scale),
      a_(pair.a.floats()),
      b_(pair.b.size()),
      dora_factor_(pair.dora_factor) {
  const auto rank = static_cast<size_t>(rank_), outputs = static_cast<size_t>(outputs_);
  for (size_t n = 0; n < outputs; ++n) {
    for (size_t r = 0; r < rank; ++r) b_[r * outputs + n] = pair.b[n * rank + r];
  }
}

SlotPair::SlotPair(const SlicePair& pair, const uint8_t* bytes)
    : rank_(pair.rank),
      inputs_(pair.inputs),
      outputs_(pair.outputs),
      scale_(pair.scale),
      a_in_slice_(reinterpret_cast<const float*>(bytes + pair.a)),
      b_in_slice_(reinterpret_cast<const float*>(bytes + pair.b)) {}

kernels::LoraWeights SlotPair::weights() const {
  const float* const a = a_in_slice_ != nullptr ? a_in_slice_ : a_.data();
  const float* const b = b_in_slice_ != nullptr ? b_in_slice_ : b_.data();
  return {a, b, dora_factor_.empty() ? nullptr : dora_factor_.data(), rank_, inputs_, outputs_, scale_};
}

SlotAdapter::SlotAdapter(const Adapter& part) : layers(part.layers.size()) {
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (size_t p = 0; p < kNumProjections; ++p) {
      if (part.layers[layer][p]) layers[layer][p].emplace(*part.layers[layer][p]);
    }
  }
  if (part.embedding) embedding.emplace(*part.embedding);
  if (part.lm_head) lm_head.emplace(*part.lm_head);
}

SlotAdapter::SlotAdapter(const AdapterSlice& slice, const uint8_t* bytes, std::shared_ptr<const void> kept)
    : layers((slice.places.size() - 2) / kNumProjections), owner(std::move(kept)) {
  const auto put = [bytes](std::optional<SlotPair>& to, const SlicePair& pair) {
    if (pair.rank > 0) to.emplace(pair, bytes);
  };
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (size_t p = 0; p < kNumProjections; ++p) put(layers[layer][p], slice.of(layer, p));
  }
  put(embedding, slice.embedding());
  put(lm_head, slice.lm_head());
}

BatchAdapters::BatchAdapters(const std::vector<const SlotAdapter*>& adapter_of_token) {
  for (size_t t = 0; t < adapter_of_token.size(); ++t) {
    const SlotAdapter* adapter = adapter_of_token[t];
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
    if (pair) result.push_back({pair->weights(), group.tokens});
  }
  return result;
}

std::vector<kernels::LoraGroup> BatchAdapters::of_lm_head(const std::vector<int32_t>& tokens) const {
  std::vector<kernels::LoraGroup> result;
  for (const Group& group : groups_) {
    if (!group.adapter->lm_head) continue;
    kernels::LoraGroup rows{group.adapter->lm_head->weights(), {}};
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
    const kernels::LoraWeights w = group.adapter->embedding->weights();
    for (const int32_t token : group.tokens) {
      float* row = out + static_cast<int64_t>(token) * w.outputs;
      for (int32_t r = 0; r < w.rank; ++r) {
        const float low = w.scale * w.a[static_cast<int64_t>(r) * w.inputs + ids[token]];
        const float* b = w.b + static_cast<int64_t>(r) * w.outputs;
        for (int32_t n = 0; n < w.outputs; ++n) row[n] += low * b[n];
      }
    }
  }
}

}  // namespace lorikeet::model
