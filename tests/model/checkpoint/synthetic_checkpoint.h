// Small random checkpoints of every kind, written by the formats' descriptions, with the weights that they stand for in
// float64. Written from the descriptions of the packings alone, so that it can be held against the readers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"
#include "tests/model/checkpoint/safetensors_writer.h"
#include "tests/temp_dir.h"

namespace lorikeet::tests {

struct Matrix {
  int32_t rows = 0, columns = 0;
  std::vector<double> values;

  double& at(int32_t r, int32_t c) {
    return values[static_cast<size_t>(r) * static_cast<size_t>(columns) + static_cast<size_t>(c)];
  }
  double at(int32_t r, int32_t c) const {
    return values[static_cast<size_t>(r) * static_cast<size_t>(columns) + static_cast<size_t>(c)];
  }
};

// What is otherwise in modules whose names end with `suffix`.
struct SyntheticOverride {
  std::string suffix;
  int32_t bits = 4, group_size = 32;
};

struct SyntheticOptions {
  model::Architecture architecture = model::Architecture::qwen2;
  model::QuantMethod method = model::QuantMethod::gptq;
  int32_t bits = 4;  // or 8
  int32_t group_size = 32;
  bool act_order = false;           // a random group for every input
  bool symmetric = true;            // zeros of 8 (128) throughout
  std::string float_dtype = "F16";  // of dense weights, norms and biases
  std::string scale_dtype;          // empty: float_dtype
  std::vector<std::string> dense;   // modules whose names end so are not quantised
  std::vector<SyntheticOverride> overrides;
  int32_t hidden = 64, layers = 2, heads = 4, kv_heads = 2, head_dim = 16, intermediate = 96, vocab = 80;
  int32_t seq_length = 2048;  // Qwen v1
  bool tied = false;
  bool quantised_head = false;
  bool zero_biases = false;  // an all-zero bias on layers that have none
  size_t shards = 1;
  uint32_t seed = 1;
};

class SyntheticCheckpoint {
 public:
  explicit SyntheticCheckpoint(const SyntheticOptions& options);

  const std::filesystem::path& dir() const { return dir_.path(); }
  // The whole weight of a projection, and its bias (empty: none).
  const Matrix& weight(int32_t layer, model::Projection p) const;
  const std::vector<double>& bias(int32_t layer, model::Projection p) const;
  int32_t bits(int32_t layer, model::Projection p) const { return bits_.at({layer, p}); }  // 32: not quantised
  const Matrix& embedding() const { return embedding_; }
  const Matrix& lm_head() const { return options_.tied ? embedding_ : lm_head_; }
  const std::vector<double>& norm(const std::string& name) const { return norms_.at(name); }

  // The tensors, to be changed and written again.
  SafetensorsWriter& tensors() { return tensors_; }
  void write() const;
  void write_config(const std::string& extra = "") const;  // extra: more members, such as R"(, "rope_theta": 5)"
  // The same with another quantization_config; "": none.
  void write_config_with(const std::string& quantisation) const;

 private:
  using Key = std::pair<int32_t, model::Projection>;

  double random_float(const std::string& dtype, int32_t power, std::vector<uint8_t>& bytes);
  std::vector<double> add_floats(const std::string& name, const std::vector<int64_t>& shape, int32_t power);
  std::vector<double> add_floats(const std::string& name, const std::vector<int64_t>& shape, int32_t power,
                                 const std::string& dtype);
  std::string quantisation_text() const;
  bool is_dense(const std::string& name) const;
  SyntheticOverride settings_of(const std::string& name) const;  // its suffix is the name
  void add_layer(int32_t layer);
  Matrix add_module(const std::string& name, int32_t outputs, int32_t inputs);
  Matrix add_quantised(const std::string& name, int32_t outputs, int32_t inputs);

  // The integers of a quantised module before they are packed.
  struct Integers {
    int32_t outputs = 0, inputs = 0, bits = 4, groups = 0;
    std::vector<int32_t> group_of;  // [inputs]
    std::vector<uint8_t> q;         // [inputs, outputs]
    std::vector<uint8_t> z;         // [groups, outputs]

    int32_t per_word() const { return 32 / bits; }
    size_t at(int32_t row, int32_t output) const {
      return static_cast<size_t>(row) * static_cast<size_t>(outputs) + static_cast<size_t>(output);
    }
  };
  Integers random_integers(const std::string& name, int32_t outputs, int32_t inputs);
  // Pack them as each format does.
  void add_compressed_tensors(const std::string& name, const Integers& of);
  void add_awq(const std::string& name, const Integers& of);
  void add_gptq(const std::string& name, const Integers& of);

  SyntheticOptions options_;
  TempDir dir_;
  std::mt19937 random_;
  SafetensorsWriter tensors_;
  std::map<Key, Matrix> weights_;
  std::map<Key, std::vector<double>> biases_;
  std::map<Key, int32_t> bits_;
  std::map<std::string, std::vector<double>> norms_;
  Matrix embedding_, lm_head_;
};

// Of a checkpoint on so many ranks; throws where there is none.
model::ShardPlan plan_of(const std::filesystem::path& dir, int size);

}  // namespace lorikeet::tests
