#include "bench/model/step_bench_inputs.h"

namespace lorikeet::model {

Adapter random_adapter(const ShardPlan& plan, int rank) {
  Numbers numbers;
  Adapter adapter;
  adapter.digest = "random";
  adapter.layers.resize(static_cast<size_t>(plan.config().num_layers));
  for (LoraLayer& layer : adapter.layers) {
    for (const Projection p : kProjections) {
      LoraPair& pair = layer[static_cast<size_t>(p)].emplace();
      pair.rank = kBenchLoraRank;
      pair.scale = 1;
      pair.inputs = plan.inputs(p, rank).size();
      pair.outputs = plan.outputs(p, rank).size();
      const auto matrix = [&](int32_t size) {
        std::vector<float> values(static_cast<size_t>(kBenchLoraRank) * static_cast<size_t>(size));
        for (float& value : values) value = 0.02F * numbers.next();
        return values;
      };
      pair.a = matrix(pair.inputs);
      pair.b = matrix(pair.outputs);
    }
  }
  adapter.count_bytes();
  return adapter;
}

std::vector<Draw> draws() {
  std::vector<Draw> all;
  const auto add = [&](const char* name) -> RowSampling& {
    all.push_back({name, {}});
    return all.back().sampling;
  };
  add("temperature 1");
  add("greedy").temperature = 0;
  add("top_p 0.95").top_p = 0.95F;
  add("min_p 0.05").min_p = 0.05F;
  RowSampling& qwen = add("top_k 20, top_p 0.8, temperature 0.7, repetition 1.05");
  qwen.top_k = 20;
  qwen.top_p = 0.8F;
  qwen.temperature = 0.7F;
  qwen.repetition_penalty = 1.05F;
  add("20 log-probabilities").logprobs = 20;
  return all;
}

}  // namespace lorikeet::model
