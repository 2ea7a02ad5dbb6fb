#include "tests/model/forward/golden_run.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <numeric>
#include <span>

namespace lorikeet::tests {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;
using model::BatchRow;
using model::RowOutput;

Json read_json(const fs::path& path) {
  std::ifstream file(path);
  CHECK(file) << path;
  return Json::parse(file);
}

// What the head of a server does with the norms of a DoRA adapter.
void set_dora_factors(model::Adapter& part, model::RankModel& model, const AddOverRanks& add) {
  std::vector<std::vector<float>> norms = model.dora_squared_norms(part);
  size_t pair = 0;
  for (model::LoraLayer& layer : part.layers) {
    for (const model::Projection p : model::kProjections) {
      auto& lora = layer[static_cast<size_t>(p)];
      if (!lora) continue;
      std::vector<float>& squares = norms.at(pair++);
      if (lora->magnitude.empty()) continue;
      if (model::is_row_parallel(p)) add(squares);
      for (size_t i = 0; i < squares.size(); ++i) {
        lora->dora_factor.push_back(lora->magnitude[i] / std::sqrt(squares[i]));
      }
    }
  }
}

}  // namespace

GoldenCheckpoint example_checkpoint() {
  const fs::path root = LORIKEET_SOURCE_DIR;
  return {root / "examples/models/tiny-qwen2-gptq-int4", root / "examples/models/adapters",
          read_json(root / "tests/data/tiny-qwen2-gptq-int4.golden.json")};
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(LORIKEET_SOURCE_DIR) / "tests/data/formats")) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

GoldenCheckpoint format_checkpoint(const std::string& name) {
  const fs::path directory = fs::path(LORIKEET_SOURCE_DIR) / "tests/data/formats" / name;
  return {directory, directory / "adapters", read_json(directory / "golden.json")};
}

std::string test_name_of(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return text;
}

std::map<std::string, model::Adapter> cut_adapters(const GoldenCheckpoint& checkpoint, const model::ShardPlan& plan,
                                                   int rank, model::RankModel& model, const AddOverRanks& add) {
  std::map<std::string, model::Adapter> parts;  // in the order of their names, alike on all ranks
  for (const auto& entry : fs::directory_iterator(checkpoint.adapters)) {
    const auto adapter = model::read_adapter(entry.path(), plan.config());
    CHECK(adapter) << adapter.error().message;
    parts.emplace(entry.path().filename().string(), model::cut_adapter(*adapter, plan, rank));
  }
  for (auto& [name, part] : parts) {
    if (part.uses_dora()) set_dora_factors(part, model, add);
  }
  return parts;
}

GoldenRun::GoldenRun(const GoldenCheckpoint& checkpoint, const model::ShardPlan& plan, int rank,
                     model::RankModel& model, int32_t num_blocks, const AddOverRanks& add)
    : golden_(checkpoint.golden), model_(model), blocks_(static_cast<size_t>(num_blocks)) {
  std::iota(blocks_.rbegin(), blocks_.rend(), 0);  // an order that is not the natural one
  for (const auto& [name, part] : cut_adapters(checkpoint, plan, rank, model, add)) {
    const auto slot = static_cast<int32_t>(slots_.size());
    const auto placed = model_.set_adapter(slot, part);
    CHECK(placed) << name << ": " << placed.error().message;
    slots_[name] = slot;
  }
}

std::string GoldenRun::differences(double tolerance) {
  std::string all;
  size_t number = 0;
  for (const Json& c : golden_["cases"]) {
    const std::string found = compare(c, answer(c), tolerance);
    if (!found.empty()) all += fmt::format("case {}, adapter {}:\n{}", number, c["adapter"].dump(), found);
    ++number;
  }
  return all;
}

GoldenRun::Answer GoldenRun::answer(const Json& c) {
  const auto prompt = c["prompt_ids"].get<std::vector<int32_t>>();
  const auto size = static_cast<int32_t>(prompt.size());
  const auto half = static_cast<int32_t>(prompt.size() / 2);
  BatchRow row;
  row.prompt_size = size;
  row.slot = c["adapter"].is_null() ? -1 : slots_.at(c["adapter"].get<std::string>());
  Answer answer;
  if (half > 0) answer.prompt_logprobs = run(prompt, row, half).target_logprobs;
  row.start = half;
  row.sample = true;
  const RowOutput rest = run(prompt, row, size - half);
  answer.prompt_logprobs.insert(answer.prompt_logprobs.end(), rest.target_logprobs.begin(),
                                rest.target_logprobs.end() - 1);
  answer.tokens.push_back(rest);
  row.pending_row = 0;
  for (row.start = size; answer.tokens.size() < c["token_ids"].size(); ++row.start) {
    answer.tokens.push_back(run({model::kPendingToken}, row, 1));
  }
  return answer;
}

// `count` positions of `ids` from row.start on, or the pending token; targets are the ids that follow.
RowOutput GoldenRun::run(const std::vector<int32_t>& ids, BatchRow row, int32_t count) {
  std::vector<int32_t> targets;
  row.token_ids = ids;
  if (row.pending_row < 0) {
    row.token_ids = row.token_ids.subspan(static_cast<size_t>(row.start), static_cast<size_t>(count));
    for (int32_t i = row.start + 1; i <= row.start + count; ++i) {
      targets.push_back(i < static_cast<int32_t>(ids.size()) ? ids[static_cast<size_t>(i)] : -1);
    }
  }
  row.block_table = blocks_;
  row.sampling.temperature = 0;
  row.sampling.logprobs = 5;
  row.logprob_targets = targets;
  model_.begin_step({&row, 1});
  return model_.finish_step().front();
}

std::string GoldenRun::compare(const Json& c, const Answer& got, double tolerance) {
  std::string found;
  const auto expect_near = [&](double actual, double expected, const std::string& where) {
    if (std::abs(actual - expected) <= tolerance) return;  // NaN is no way near
    found += fmt::format("  {}: {} instead of {}\n", where, actual, expected);
  };
  for (size_t i = 1; i < c["prompt_ids"].size(); ++i) {
    expect_near(got.prompt_logprobs.at(i - 1), c["prompt_logprobs"][i].get<double>(),
                fmt::format("prompt position {}", i));
  }
  for (size_t i = 0; i < c["token_ids"].size(); ++i) {
    std::map<int32_t, double> logprobs;
    for (const auto& token : got.tokens.at(i).logprobs) logprobs[token.token_id] = token.logprob;
    for (const Json& top : c["top5"][i]) {
      const auto it = logprobs.find(top[0].get<int32_t>());
      if (it == logprobs.end()) continue;  // tied with one below the best five
      expect_near(it->second, top[1].get<double>(), fmt::format("token {}, candidate {}", i, it->first));
    }
    const int32_t token = got.tokens[i].token_id;
    if (token == c["token_ids"][i].get<int32_t>()) continue;
    const double margin = c["top5"][i][0][1].get<double>() - c["top5"][i][1][1].get<double>();
    if (!(margin < 2 * tolerance)) found += fmt::format("  token {} is {}, a margin of {} away\n", i, token, margin);
    break;  // after a near-tie the texts go different ways
  }
  return found;
}

}  // namespace lorikeet::tests
