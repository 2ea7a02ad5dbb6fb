#include "model/adapter/adapter.h"

#include <algorithm>

namespace lorikeet::model {
namespace {

std::vector<float> part_of(const std::vector<float>& values, Range range) {
  if (values.empty()) return {};
  return {values.begin() + range.begin, values.begin() + range.end};
}

LoraPair cut_pair(const LoraPair& whole, Range outputs, Range inputs) {
  LoraPair part;
  part.rank = whole.rank;
  part.scale = whole.scale;
  part.inputs = inputs.size();
  part.outputs = outputs.size();
  part.a = whole.a.columns(static_cast<size_t>(whole.inputs), static_cast<size_t>(inputs.begin),
                           static_cast<size_t>(inputs.end));
  part.b = whole.b.rows(static_cast<size_t>(whole.rank), static_cast<size_t>(outputs.begin),
                        static_cast<size_t>(outputs.end));
  part.magnitude = part_of(whole.magnitude, outputs);
  part.dora_factor = part_of(whole.dora_factor, outputs);
  return part;
}

void count(const LoraPair& pair, Adapter& adapter) {
  adapter.bytes += pair.a.bytes().size() + pair.b.bytes().size();
  adapter.max_rank = std::max(adapter.max_rank, pair.rank);
}

}  // namespace

bool Adapter::uses_dora() const {
  return std::any_of(layers.begin(), layers.end(), [](const LoraLayer& layer) {
    return std::any_of(layer.begin(), layer.end(), [](const auto& pair) { return pair && !pair->magnitude.empty(); });
  });
}

void Adapter::count_bytes() {
  bytes = 0;
  max_rank = 0;
  for (const LoraLayer& layer : layers) {
    for (const auto& pair : layer) {
      if (pair) count(*pair, *this);
    }
  }
  for (const auto* pair : {&embedding, &lm_head}) {
    if (*pair) count(**pair, *this);
  }
}

Adapter cut_adapter(const Adapter& adapter, const ShardPlan& plan, int rank) {
  Adapter part;
  part.digest = adapter.digest;
  part.layers.resize(adapter.layers.size());
  for (size_t layer = 0; layer < adapter.layers.size(); ++layer) {
    for (const Projection p : kProjections) {
      const auto& pair = adapter.layers[layer][static_cast<size_t>(p)];
      if (pair)
        part.layers[layer][static_cast<size_t>(p)] = cut_pair(*pair, plan.outputs(p, rank), plan.inputs(p, rank));
    }
  }
  part.embedding = adapter.embedding;
  if (adapter.lm_head) {
    part.lm_head = cut_pair(*adapter.lm_head, plan.shard(rank).vocab, {0, adapter.lm_head->inputs});
  }
  part.count_bytes();
  return part;
}

}  // namespace lorikeet::model
