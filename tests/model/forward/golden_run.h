// Answers the cases of committed reference outputs (transformers + peft in float32) with one rank's model, without any
// server, and says where they differ.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/forward/rank_model.h"

namespace lorikeet::tests {

struct GoldenCheckpoint {
  std::filesystem::path directory, adapters;
  nlohmann::json golden;
};

GoldenCheckpoint example_checkpoint();
std::vector<std::string> format_names();  // of the small checkpoints, one of every format
GoldenCheckpoint format_checkpoint(const std::string& name);
std::string test_name_of(std::string text);  // letters, digits and underscores

// Values that all ranks have, in place of them their sums over the ranks.
using AddOverRanks = std::function<void(std::vector<float>&)>;

// The adapters of a checkpoint, this rank's parts, as they are put into slots.
std::map<std::string, model::Adapter> cut_adapters(const GoldenCheckpoint& checkpoint, const model::ShardPlan& plan,
                                                   int rank, model::RankModel& model, const AddOverRanks& add);

class GoldenRun {
 public:
  // Puts every adapter into a slot of its own. `num_blocks` are those of the model's cache.
  GoldenRun(
      const GoldenCheckpoint& checkpoint, const model::ShardPlan& plan, int rank, model::RankModel& model,
      int32_t num_blocks, const AddOverRanks& add = [](std::vector<float>&) {});

  // One line for every difference of more than `tolerance`, over all cases. Each case is answered alone, its prompt in
  // two chunks; after a near-tie that went another way a case is not followed any further.
  std::string differences(double tolerance);

 private:
  struct Answer {
    std::vector<float> prompt_logprobs;    // of positions 1, 2, ... of the prompt
    std::vector<model::RowOutput> tokens;  // one per generated token
  };

  Answer answer(const nlohmann::json& c);
  model::RowOutput run(const std::vector<int32_t>& ids, model::BatchRow row, int32_t count);
  static std::string compare(const nlohmann::json& c, const Answer& got, double tolerance);

  const nlohmann::json golden_;
  model::RankModel& model_;
  std::vector<int32_t> blocks_;
  std::map<std::string, int32_t> slots_;
};

}  // namespace lorikeet::tests
