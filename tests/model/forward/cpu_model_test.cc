// The forward pass against the committed reference outputs (transformers + peft in float32), without any server.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "comm/collective/group.h"
#include "model/forward/rank_model.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

Json read_json(const fs::path& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

struct Step {
  std::vector<float> prompt_logprobs;  // of positions 1, 2, ... of the prompt
  std::vector<RowOutput> tokens;       // one per generated token
};

struct Checkpoint {
  fs::path directory, adapters;
  Json golden;
  double tolerance;
  bool int8_activations = false;
};

// One rank's life: loads its part, then answers every case alone, its prompt in two chunks.
class RankRun {
 public:
  RankRun(const Checkpoint& checkpoint, const ShardPlan& plan, std::shared_ptr<comm::Collective> group)
      : rank_(group->rank()) {
    RankModelOptions options;
    options.num_blocks = 64;
    options.num_slots = 4;
    options.int8_activations = checkpoint.int8_activations;
    auto weights = load_rank_weights(checkpoint.directory, plan, rank_);
    EXPECT_TRUE(weights.has_value()) << weights.error().message;
    model_ = make_cpu_model(*std::move(weights), plan, options, group).value();
    blocks_.resize(static_cast<size_t>(options.num_blocks));
    std::iota(blocks_.rbegin(), blocks_.rend(), 0);  // an order that is not the natural one
    std::vector<fs::path> adapters;                  // in the same order on every rank
    for (const auto& entry : fs::directory_iterator(checkpoint.adapters)) adapters.push_back(entry.path());
    std::sort(adapters.begin(), adapters.end());
    for (const fs::path& path : adapters) {
      const auto slot = static_cast<int32_t>(slots_.size());
      const auto adapter = read_adapter(path, plan.config());
      EXPECT_TRUE(adapter.has_value()) << adapter.error().message;
      Adapter part = cut_adapter(*adapter, plan, rank_);
      if (part.uses_dora()) {
        EXPECT_FALSE(model_->set_adapter(slot, part).has_value());  // without its factors
        add_factors(part, *group);
      }
      const auto set = model_->set_adapter(slot, part);
      EXPECT_TRUE(set.has_value()) << set.error().message;
      slots_[path.filename().string()] = slot;
    }
  }

  Step answer(const Json& c) {
    const auto prompt = c["prompt_ids"].get<std::vector<int32_t>>();
    const auto slot = c["adapter"].is_null() ? -1 : slots_.at(c["adapter"].get<std::string>());
    Step result;
    prompt_size_ = static_cast<int32_t>(prompt.size());
    const auto half = static_cast<int32_t>(prompt.size() / 2);
    const auto size = static_cast<int32_t>(prompt.size());
    if (half > 0) {
      const RowOutput first = run(prompt, 0, half, slot, false, -1);
      result.prompt_logprobs = first.target_logprobs;
    }
    const RowOutput second = run(prompt, half, size - half, slot, true, -1);
    result.prompt_logprobs.insert(result.prompt_logprobs.end(), second.target_logprobs.begin(),
                                  second.target_logprobs.end() - 1);
    result.tokens.push_back(second);
    for (size_t i = 1; i < c["token_ids"].size(); ++i) {
      result.tokens.push_back(run({kPendingToken}, size + static_cast<int32_t>(i) - 1, 1, slot, true, 0));
    }
    return result;
  }

 private:
  void add_factors(Adapter& part, comm::Collective& group) {
    const auto norms = model_->dora_squared_norms(part);
    size_t at = 0;
    for (LoraLayer& layer : part.layers) {
      for (const Projection p : kProjections) {
        auto& pair = layer[static_cast<size_t>(p)];
        if (!pair) continue;
        std::vector<float> squares = norms.at(at++);
        if (is_row_parallel(p)) group.all_reduce(squares.data(), squares.size());
        for (size_t i = 0; i < squares.size(); ++i)
          pair->dora_factor.push_back(pair->magnitude[i] / std::sqrt(squares[i]));
      }
    }
  }

  // Positions [start, start + count) of `ids` (or the pending token); targets are the ids that follow.
  RowOutput run(const std::vector<int32_t>& ids, int32_t start, int32_t count, int32_t slot, bool sample,
                int32_t pending_row) {
    BatchRow row;
    std::vector<int32_t> targets;
    const bool pending = pending_row >= 0;
    row.token_ids = pending
                        ? std::span<const int32_t>(ids)
                        : std::span<const int32_t>(ids).subspan(static_cast<size_t>(start), static_cast<size_t>(count));
    if (!pending) {
      for (int32_t i = start + 1; i <= start + count; ++i)
        targets.push_back(i < static_cast<int32_t>(ids.size()) ? ids[static_cast<size_t>(i)] : -1);
    }
    row.pending_row = pending_row;
    row.start = start;
    row.prompt_size = prompt_size_;
    row.block_table = blocks_;
    row.slot = slot;
    row.sample = sample;
    row.sampling.temperature = 0;
    row.sampling.logprobs = 5;
    row.logprob_targets = targets;
    model_->begin_step({&row, 1});
    return model_->finish_step().front();
  }

  int rank_;
  std::unique_ptr<RankModel> model_;
  std::vector<int32_t> blocks_;
  std::map<std::string, int32_t> slots_;
  int32_t prompt_size_ = 0;
};

void expect_agreement(const Json& c, const Step& got, double tolerance) {
  for (size_t i = 1; i < c["prompt_ids"].size(); ++i) {
    EXPECT_NEAR(got.prompt_logprobs.at(i - 1), c["prompt_logprobs"][i].get<double>(), tolerance)
        << "prompt position " << i;
  }
  for (size_t i = 0; i < c["token_ids"].size(); ++i) {
    std::map<int32_t, double> logprobs;
    for (const auto& token : got.tokens.at(i).logprobs) logprobs[token.token_id] = token.logprob;
    for (const Json& top : c["top5"][i]) {
      const auto it = logprobs.find(top[0].get<int32_t>());
      if (it == logprobs.end()) continue;  // tied with one below the best five
      EXPECT_NEAR(it->second, top[1].get<double>(), tolerance) << "step " << i;
    }
    const int32_t token = got.tokens[i].token_id;
    if (token == c["token_ids"][i].get<int32_t>()) continue;
    const double margin = c["top5"][i][0][1].get<double>() - c["top5"][i][1][1].get<double>();
    EXPECT_LT(margin, 2 * tolerance) << "step " << i << ": token " << token;
    return;  // after a near-tie the texts go different ways
  }
}

void expect_all_cases(const Checkpoint& checkpoint, int ranks) {
  const auto config = read_model_config(checkpoint.directory);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  const auto plan = ShardPlan::make(*config, ranks);
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  std::vector<std::thread> threads;
  for (auto& end : comm::make_local_group(ranks)) {
    threads.emplace_back([&, group = std::shared_ptr<comm::Collective>(std::move(end))] {
      RankRun run(checkpoint, *plan, group);
      for (const Json& c : checkpoint.golden["cases"]) expect_agreement(c, run.answer(c), checkpoint.tolerance);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class ExampleModel : public testing::TestWithParam<int> {};

TEST_P(ExampleModel, AgreesWithTheReference) {
  const fs::path root = LORIKEET_SOURCE_DIR;
  expect_all_cases({root / "examples/models/tiny-qwen2-gptq-int4", root / "examples/models/adapters",
                    read_json(root / "tests/data/tiny-qwen2-gptq-int4.golden.json"), tests::kLogprobTolerance},
                   GetParam());
}

INSTANTIATE_TEST_SUITE_P(TensorParallelSizes, ExampleModel, testing::Values(1, 2, 4));

TEST(ExampleModelWithInt8Activations, IsNearTheReference) {
  const fs::path root = LORIKEET_SOURCE_DIR;
  expect_all_cases(
      {root / "examples/models/tiny-qwen2-gptq-int4", root / "examples/models/adapters",
       read_json(root / "tests/data/tiny-qwen2-gptq-int4.golden.json"), tests::kInt8ActivationsLogprobTolerance, true},
      2);
}

class EveryFormat : public testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(EveryFormat, AgreesWithTheReference) {
  const fs::path directory = fs::path(LORIKEET_SOURCE_DIR) / "tests/data/formats" / std::get<0>(GetParam());
  expect_all_cases(
      {directory, directory / "adapters", read_json(directory / "golden.json"), tests::kFormatLogprobTolerance},
      std::get<1>(GetParam()));
}

std::vector<std::string> formats() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(LORIKEET_SOURCE_DIR) / "tests/data/formats")) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat, testing::Combine(testing::ValuesIn(formats()), testing::Values(1, 2)),
                         [](const auto& format) {
                           std::string name =
                               std::get<0>(format.param) + "_tp" + std::to_string(std::get<1>(format.param));
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace lorikeet::model
