#include "launcher/random_adapters.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "model/checkpoint/in_parallel.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::launcher {
namespace {

using Json = nlohmann::ordered_json;

struct Tensor {
  std::string name;
  int64_t rows = 0, columns = 0;
  uint64_t bytes() const { return 2 * static_cast<uint64_t>(rows) * static_cast<uint64_t>(columns); }
};

std::string last_of(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

bool is_target(const std::string& module, const std::vector<std::string>& targets) {
  return targets.empty() || std::find(targets.begin(), targets.end(), last_of(module)) != targets.end();
}

std::vector<Tensor> tensors_of(const model::ModelConfig& config, int32_t rank,
                               const std::vector<std::string>& targets) {
  std::vector<Tensor> tensors;
  std::set<std::string> seen;  // Qwen v1 has q, k and v in one module
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const model::Projection p : model::kProjections) {
      const model::ModulePlace place = model::place_of(config, layer, p);
      if (!is_target(place.module, targets) || !seen.insert(place.module).second) continue;
      const std::string name = "base_model.model." + place.module;
      tensors.push_back({name + ".lora_A.weight", rank, model::input_size(config, p)});
      tensors.push_back({name + ".lora_B.weight", place.outputs, rank});
    }
  }
  return tensors;
}

Json config_of(const model::ModelConfig& config, int32_t rank, const std::vector<std::string>& targets) {
  std::set<std::string> modules;
  for (const model::Projection p : model::kProjections) {
    const std::string module = model::place_of(config, 0, p).module;
    if (is_target(module, targets)) modules.insert(last_of(module));
  }
  return {{"peft_type", "LORA"}, {"task_type", "CAUSAL_LM"}, {"r", rank},
          {"lora_alpha", rank},  {"bias", "none"},           {"target_modules", modules}};
}

uint64_t bytes_of(const std::vector<Tensor>& tensors) {
  uint64_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

std::string header_of(const std::vector<Tensor>& tensors) {
  Json header = Json::object();
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", "F16"},
                           {"shape", {tensor.rows, tensor.columns}},
                           {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string size;
  for (int i = 0; i < 8; ++i) size += static_cast<char>(text.size() >> (8 * i));
  return size + text;
}

// Four halves of +-[2^-7, 2^-6): small enough that a sum over any rank stays far from the end of fp16.
uint64_t random_halves(uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (state & 0x83ff83ff83ff83ffULL) | 0x2000200020002000ULL;
}

}  // namespace

Result<void> check_targets(const model::ModelConfig& config, const std::vector<std::string>& targets) {
  for (const std::string& target : targets) {
    const bool known = std::any_of(std::begin(model::kProjections), std::end(model::kProjections),
                                   [&](auto p) { return last_of(model::place_of(config, 0, p).module) == target; });
    if (!known) return fail("the model has no linear layer {}", target);
  }
  return {};
}

Result<void> write_random_adapter(const std::filesystem::path& dir, const model::ModelConfig& config, int32_t rank,
                                  uint64_t seed, const std::vector<std::string>& targets) {
  if (auto ok = check_targets(config, targets); !ok) return ok;
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  std::ofstream(dir / "adapter_config.json") << config_of(config, rank, targets).dump(2);
  const std::vector<Tensor> tensors = tensors_of(config, rank, targets);
  std::ofstream out(dir / "adapter_model.safetensors", std::ios::binary);
  out << header_of(tensors);
  uint64_t left = bytes_of(tensors);
  uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15ULL;
  std::vector<uint64_t> piece(1 << 17);
  while (left > 0) {
    for (uint64_t& word : piece) word = random_halves(state);
    const uint64_t bytes = std::min<uint64_t>(left, piece.size() * sizeof(uint64_t));
    out.write(reinterpret_cast<const char*>(piece.data()), static_cast<std::streamsize>(bytes));
    left -= bytes;
  }
  out.close();
  if (!out) return fail("an adapter cannot be written into {}; is the disk full?", dir.string());
  return {};
}

Result<void> write_random_adapters(const std::filesystem::path& dir, int32_t count, const model::ModelConfig& config,
                                   int32_t rank, const std::vector<std::string>& targets) {
  constexpr int kThreads = 8;
  std::vector<Result<void>> made(static_cast<size_t>(count));
  model::in_parallel(made.size(), kThreads, [&](size_t i) {
    made[i] = write_random_adapter(dir / std::to_string(i), config, rank, i, targets);
  });
  for (const Result<void>& one : made) {
    if (!one) return one;
  }
  return {};
}

uint64_t random_adapter_bytes(const model::ModelConfig& config, int32_t rank, const std::vector<std::string>& targets) {
  return bytes_of(tensors_of(config, rank, targets));
}

}  // namespace lorikeet::launcher
