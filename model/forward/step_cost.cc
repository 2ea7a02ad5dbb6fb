#include "model/forward/step_cost.h"

#include <algorithm>

namespace lorikeet::model {
namespace {

uint64_t linear_bytes(const QuantConfig& quant, uint64_t outputs, uint64_t inputs, const ElementBytes& bytes) {
  if (quant.method == QuantMethod::none) return outputs * inputs * static_cast<uint64_t>(bytes.dense);
  const uint64_t group = quant.group_size > 0 ? static_cast<uint64_t>(quant.group_size) : inputs;
  const uint64_t groups = (inputs + group - 1) / group;
  constexpr uint64_t kScaleBytes = 2;
  const uint64_t zeros = quant.symmetric ? 0 : groups * outputs / 2;
  return outputs * inputs / 2 + groups * outputs * kScaleBytes + zeros;
}

}  // namespace

StepCost step_cost(const ShardPlan& plan, int rank, const ElementBytes& bytes) {
  const ModelConfig& config = plan.config();
  const RankShard& shard = plan.shard(rank);
  const auto layers = static_cast<uint64_t>(config.num_layers);
  const auto hidden = static_cast<uint64_t>(config.hidden_size);
  StepCost cost;
  uint64_t layer_bytes = 2 * hidden * static_cast<uint64_t>(bytes.dense);  // the two norms
  double multiplications = 0;
  uint64_t adapter_elements = 0;
  for (const Projection p : kProjections) {
    const auto outputs = static_cast<uint64_t>(plan.outputs(p, rank).size());
    const auto inputs = static_cast<uint64_t>(plan.inputs(p, rank).size());
    layer_bytes += linear_bytes(config.quant, outputs, inputs, bytes);
    multiplications += static_cast<double>(outputs) * static_cast<double>(inputs);
    adapter_elements += outputs + inputs;
  }
  cost.layer_bytes = layers * layer_bytes;
  cost.adapter_bytes_per_rank = layers * adapter_elements * static_cast<uint64_t>(bytes.adapter);
  cost.lm_head_bytes = static_cast<uint64_t>(shard.vocab.size()) * hidden * static_cast<uint64_t>(bytes.dense);
  cost.kv_bytes_per_position = plan.kv_bytes_per_position(rank, static_cast<uint64_t>(bytes.kv));
  cost.layer_flops_per_token = 2 * static_cast<double>(layers) * multiplications;
  cost.lm_head_flops_per_row = 2.0 * shard.vocab.size() * static_cast<double>(hidden);
  // A product of the query with the key, and of the weight with the value.
  cost.attention_flops_per_pair = 4.0 * static_cast<double>(layers) * shard.heads.size() * config.head_dim;
  return cost;
}

double StepCost::decode_bytes(double rows, double context, int32_t adapters, int32_t adapter_rank) const {
  return static_cast<double>(layer_bytes + lm_head_bytes) +
         rows * context * static_cast<double>(kv_bytes_per_position) +
         static_cast<double>(adapters) * adapter_rank * static_cast<double>(adapter_bytes_per_rank);
}

double StepCost::decode_flops(double rows, double context) const {
  return rows * (layer_flops_per_token + lm_head_flops_per_row + context * attention_flops_per_pair);
}

double StepCost::prefill_bytes(int64_t prompts, int64_t tokens, int64_t chunk) const {
  const int64_t step = std::max<int64_t>(1, chunk);
  const int64_t all = prompts * tokens;
  const int64_t steps = (all + step - 1) / step;
  return static_cast<double>(steps) * static_cast<double>(layer_bytes) + static_cast<double>(lm_head_bytes) +
         static_cast<double>(all) * static_cast<double>(kv_bytes_per_position);
}

double StepCost::prefill_flops(int64_t prompts, int64_t tokens) const {
  const auto n = static_cast<double>(tokens);
  const double one = n * layer_flops_per_token + lm_head_flops_per_row + n * (n + 1) / 2 * attention_flops_per_pair;
  return static_cast<double>(prompts) * one;
}

}  // namespace lorikeet::model
