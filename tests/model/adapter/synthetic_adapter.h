// Adapter directories as PEFT saves them, with random tensors.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/model/checkpoint/safetensors_writer.h"
#include "tests/temp_dir.h"

namespace lorikeet::tests {

// The settings that PEFT writes for a plain adapter.
inline nlohmann::ordered_json plain_adapter_config(int rank, double alpha, const std::vector<std::string>& targets) {
  nlohmann::ordered_json config = {{"alora_invocation_tokens", nullptr},
                                   {"alpha_pattern", nlohmann::ordered_json::object()},
                                   {"auto_mapping", nullptr},
                                   {"base_model_name_or_path", "somewhere"},
                                   {"bias", "none"},
                                   {"exclude_modules", nullptr},
                                   {"fan_in_fan_out", false},
                                   {"inference_mode", true},
                                   {"init_lora_weights", true},
                                   {"layers_pattern", nullptr},
                                   {"layers_to_transform", nullptr},
                                   {"loftq_config", nlohmann::ordered_json::object()},
                                   {"lora_bias", false},
                                   {"lora_dropout", 0.1},
                                   {"megatron_config", nullptr},
                                   {"megatron_core", "megatron.core"},
                                   {"modules_to_save", nullptr},
                                   {"peft_type", "LORA"},
                                   {"peft_version", "0.21.0"},
                                   {"qalora_group_size", 16},
                                   {"rank_pattern", nlohmann::ordered_json::object()},
                                   {"revision", nullptr},
                                   {"task_type", "CAUSAL_LM"},
                                   {"use_dora", false},
                                   {"use_rslora", false},
                                   {"target_modules", targets}};
  config["r"] = rank;
  config["lora_alpha"] = alpha;
  return config;
}

class SyntheticAdapter {
 public:
  explicit SyntheticAdapter(uint32_t seed = 1) : random_(seed) {}

  const std::filesystem::path& dir() const { return dir_.path(); }
  nlohmann::ordered_json config;
  SafetensorsWriter tensors;

  // The values that were written are kept, row-major.
  std::vector<float> add_matrix(const std::string& name, int64_t rows, int64_t columns) {
    std::vector<float> values;
    for (int64_t i = 0; i < rows * columns; ++i) values.push_back(next());
    tensors.add("base_model.model." + name, "F32", {rows, columns}, values);
    return values;
  }

  std::vector<float> add_vector(const std::string& name, int64_t size) {
    std::vector<float> values;
    for (int64_t i = 0; i < size; ++i) values.push_back(next());
    tensors.add("base_model.model." + name, "F32", {size}, values);
    return values;
  }

  struct Pair {
    std::vector<float> a, b;
  };
  Pair add_pair(const std::string& module, int64_t rank, int64_t inputs, int64_t outputs) {
    Pair pair;
    pair.a = add_matrix(module + ".lora_A.weight", rank, inputs);
    pair.b = add_matrix(module + ".lora_B.weight", outputs, rank);
    return pair;
  }

  void write() const {
    write_file(dir_ / "adapter_config.json", config.dump(2));
    tensors.write(dir_ / "adapter_model.safetensors");
  }

 private:
  // Multiples of 2^-11 below 1 in size: exact in every type but bf16.
  float next() { return static_cast<float>(static_cast<int>(random_() % 4095) - 2047) / 2048; }

  TempDir dir_;
  std::mt19937 random_;
};

}  // namespace lorikeet::tests
