#include "model/adapter.h"

#include <algorithm>

namespace lorikeet::model {
namespace {

std::vector<float> rows_of(const std::vector<float>& matrix, int32_t columns, Range rows) {
  const auto first = static_cast<ptrdiff_t>(rows.begin) * columns, last = static_cast<ptrdiff_t>(rows.end) * columns;
  return {matrix.begin() + first, matrix.begin() + last};
}

std::vector<float> columns_of(const std::vector<float>& matrix, int32_t rows, int32_t all_columns, Range columns) {
  std::vector<float> part;
  part.reserve(static_cast<size_t>(rows) * static_cast<size_t>(columns.size()));
  for (int32_t r = 0; r < rows; ++r) {
    const auto row = matrix.begin() + static_cast<ptrdiff_t>(r) * all_columns;
    part.insert(part.end(), row + columns.begin, row + columns.end);
  }
  return part;
}

LoraPair cut_pair(const LoraPair& whole, Range outputs, Range inputs) {
  LoraPair part;
  part.rank = whole.rank;
  part.scale = whole.scale;
  part.inputs = inputs.size();
  part.outputs = outputs.size();
  part.a = columns_of(whole.a, whole.rank, whole.inputs, inputs);
  part.b = rows_of(whole.b, whole.rank, outputs);
  if (!whole.magnitude.empty()) part.magnitude = rows_of(whole.magnitude, 1, outputs);
  if (!whole.dora_factor.empty()) part.dora_factor = rows_of(whole.dora_factor, 1, outputs);
  return part;
}

void count(const LoraPair& pair, Adapter& adapter) {
  adapter.bytes += (pair.a.size() + pair.b.size()) * sizeof(float);
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
