// Random checkpoints and adapters on disk, with what they stand for in float64: everything from one number.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/adapter/adapter.h"
#include "model/config/config.h"
#include "tests/model/adapter/synthetic_adapter.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"
#include "tests/model/forward/reference_model.h"

namespace lorikeet::tests {

// An architecture, a quantisation and an adapter that fit together.
class RandomCase {
 public:
  explicit RandomCase(uint32_t seed);

  const std::filesystem::path& checkpoint_dir() const { return checkpoint_->dir(); }
  const std::filesystem::path& adapter_dir() const { return adapter_->dir(); }
  const std::string& description() const { return description_; }  // one line, for failures

  // The same by construction, without the readers.
  const model::ModelConfig& config() const { return config_; }
  ReferenceModel::Weights weights() const;
  const model::Adapter& adapter() const { return pairs_; }

  std::vector<int> sizes() const;  // of the tensor-parallel groups that the model can be cut for: of 1, 2, 4, 8
  std::vector<int32_t> prompt();   // random ids, enough to pass what YaRN and Qwen v1 were trained on

 private:
  int32_t pick(std::initializer_list<int32_t> values);
  bool chance(int percent) { return pick_below(100) < percent; }
  int32_t pick_below(int32_t end) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(end)); }

  void choose_shape();
  void choose_quantisation();
  void choose_positions();
  void write_adapter();
  void add_pair(const std::string& module, int32_t inputs, int32_t outputs,
                const std::vector<model::Projection>& projections, int32_t layer);
  void add_outer_pair(const std::string& module);
  model::LoraPair new_pair(const std::string& module, int32_t inputs, int32_t outputs);

  std::mt19937 random_;
  SyntheticOptions options_;
  std::string extra_;  // more of config.json
  model::ModelConfig config_;
  std::unique_ptr<SyntheticCheckpoint> checkpoint_;
  std::unique_ptr<SyntheticAdapter> adapter_;
  model::Adapter pairs_;
  std::string description_;
};

}  // namespace lorikeet::tests
