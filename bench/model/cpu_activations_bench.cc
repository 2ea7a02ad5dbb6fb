// What --cpu-activations int8 changes: the time of a step, and the log-probabilities of the reference cases of the
// example model (tests/data), whose prompts and answers are put through both kinds of model.
#include <benchmark/benchmark.h>
#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "bench/kernels/cpu_floors.h"
#include "comm/collective/group.h"
#include "model/checkpoint/resident_weights.h"
#include "model/config/config.h"
#include "model/forward/rank_model.h"

namespace lorikeet::bench {
namespace {

using Json = nlohmann::json;

Json read_json(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

// In memory as a rank that serves has its weights in.
model::RankWeights resident_dummies(const model::ShardPlan& plan) {
  auto weights = model::make_dummy_rank_weights(plan, 0, 1);
  auto layers = std::move(weights.layers);
  const auto resident = model::ResidentWeights::make(plan, 0, "dummies").value();
  auto put = resident->put_outer(std::move(weights));
  for (size_t i = 0; i < layers.size(); ++i) put = resident->put_layer(static_cast<int32_t>(i), std::move(layers[i]));
  CHECK(put) << put.error().message;
  auto memory = std::make_shared<kernels::ResidentMemory>(resident->seal().value());
  return model::attach_weights(std::move(memory), plan, 0, "dummies").value();
}

struct Model {
  std::unique_ptr<model::RankModel> ranks_model;
  std::vector<int32_t> blocks;

  Model(const std::string& directory, bool dummy, bool int8, int threads) {
    const auto config = model::read_model_config(directory).value();
    const auto plan = model::ShardPlan::make(config, 1).value();
    model::RankModelOptions options;
    options.num_blocks = 64;
    options.num_threads = threads;
    options.own_cores = true;
    options.int8_activations = int8;
    auto weights = dummy ? resident_dummies(plan) : model::load_rank_weights(directory, plan, 0).value();
    std::shared_ptr<comm::Collective> alone(std::move(comm::make_local_group(1).front()));
    ranks_model = model::make_cpu_model(std::move(weights), plan, options, alone).value();
    blocks.resize(static_cast<size_t>(options.num_blocks));
    std::iota(blocks.begin(), blocks.end(), 0);
  }

  // The log-probability, and the rank, of each id but the first; the rest of the row as it is.
  model::RowOutput run(const std::vector<int32_t>& ids, int32_t start, bool targets) {
    std::vector<int32_t> wanted(ids.begin() + 1, ids.end());
    wanted.push_back(-1);
    model::BatchRow row;
    row.token_ids = ids;
    row.start = start;
    row.prompt_size = static_cast<int32_t>(ids.size());
    row.block_table = blocks;
    row.sample = !targets;
    row.sampling.temperature = 0;
    row.sampling.target_top_logprobs = targets ? 0 : -1;
    if (targets) row.logprob_targets = wanted;
    ranks_model->begin_step({&row, 1});
    return ranks_model->finish_step().front();
  }
};

void log_probabilities(benchmark::State& state) {
  const std::string root = LORIKEET_SOURCE_DIR;
  const std::string directory = root + "/examples/models/tiny-qwen2-gptq-int4";
  Model exact(directory, false, false, 1), rounded(directory, false, true, 1);
  const Json golden = read_json(root + "/tests/data/tiny-qwen2-gptq-int4.golden.json");
  double worst = 0, sum = 0, signed_sum = 0, best_alike = 0, count = 0;
  for (auto _ : state) {
    for (const Json& c : golden["cases"]) {
      auto ids = c["prompt_ids"].get<std::vector<int32_t>>();
      for (const Json& id : c["token_ids"]) ids.push_back(id.get<int32_t>());
      const model::RowOutput a = exact.run(ids, 0, true), b = rounded.run(ids, 0, true);
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const double difference = b.target_logprobs[i] - a.target_logprobs[i];
        worst = std::max(worst, std::abs(difference));
        sum += std::abs(difference);
        signed_sum += difference;
        best_alike += (a.target_ranks[i] == 1) == (b.target_ranks[i] == 1) ? 1 : 0;
        ++count;
      }
    }
  }
  state.counters["tokens"] = count;
  state.counters["worst"] = worst;
  state.counters["mean"] = sum / count;
  state.counters["mean_signed"] = signed_sum / count;
  state.counters["best_alike"] = best_alike / count;
}
BENCHMARK(log_probabilities)->Iterations(1)->Unit(benchmark::kMillisecond);

// Dummy weights of Qwen2.5-1.5B's shape. Arguments: tokens of the step, threads. Both kinds in turn; the counters are
// the shortest times, by the wall and of the CPU.
void step(benchmark::State& state) {
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto threads = static_cast<int>(state.range(1));
  const std::string directory = std::string(LORIKEET_SOURCE_DIR) + "/bench/cpu_peer";
  Model models[] = {{directory, true, false, threads}, {directory, true, true, threads}};
  Seconds shortest[] = {{1e9, 1e9}, {1e9, 1e9}};
  const std::vector<int32_t> ids(tokens, 17);
  for (auto _ : state) {
    for (int i = 0; i < 2; ++i) {
      const Seconds taken = seconds_of([&] { models[i].run(ids, 0, false); });
      shortest[i].wall = std::min(shortest[i].wall, taken.wall);
      shortest[i].cpu = std::min(shortest[i].cpu, taken.cpu);
    }
  }
  for (int i = 0; i < 2; ++i) {
    const std::string name = i == 0 ? "float32" : "int8";
    state.counters[name + "_ms"] = 1e3 * shortest[i].wall;
    state.counters[name + "_cpu_ms"] = 1e3 * shortest[i].cpu;
  }
}
BENCHMARK(step)
    ->ArgNames({"tokens", "threads"})
    ->Args({1, 1})
    ->Args({1, 2})
    ->Iterations(20)
    ->Unit(benchmark::kMillisecond);
BENCHMARK(step)->Name("prompt")->ArgNames({"tokens", "threads"})->Args({512, 2})->Iterations(3);

}  // namespace
}  // namespace lorikeet::bench
