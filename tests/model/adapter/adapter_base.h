// A small base model that tests read adapters for.
#pragma once

#include <stdexcept>
#include <string>

#include "model/adapter/adapter.h"
#include "tests/model/adapter/synthetic_adapter.h"

namespace lorikeet::model {

inline ModelConfig config_of(Architecture architecture = Architecture::qwen2) {
  ModelConfig config;
  config.architecture = architecture;
  config.hidden_size = 64;
  config.num_layers = 3;
  config.num_heads = 8;
  config.num_kv_heads = architecture == Architecture::qwen ? 8 : 2;
  config.head_dim = 8;
  config.intermediate_size = 96;
  config.vocab_size = 50;
  config.quant.method = QuantMethod::gptq;
  config.quant.group_size = 32;
  return config;
}

inline std::string module_of(int layer, Projection p) {
  return "model.layers." + std::to_string(layer) + "." + std::string(module_name_of(p));
}

inline const LoraPair& pair_of(const Adapter& adapter, int layer, Projection p) {
  return *adapter.layers[static_cast<size_t>(layer)][static_cast<size_t>(p)];
}

inline Adapter read(const tests::SyntheticAdapter& files, const ModelConfig& config) {
  auto adapter = read_adapter(files.dir(), config);
  if (!adapter) throw std::runtime_error(adapter.error().message);
  return *adapter;
}

inline std::string error_of(const tests::SyntheticAdapter& files, const ModelConfig& config = config_of(),
                            const AdapterOptions& options = {}) {
  files.write();
  const auto adapter = read_adapter(files.dir(), config, options);
  return adapter ? "" : adapter.error().message;
}

// q and down of layer 1.
inline void fill(tests::SyntheticAdapter& files, int rank = 4) {
  files.config = tests::plain_adapter_config(rank, 8, {"q_proj", "down_proj"});
  files.add_pair(module_of(1, Projection::q), rank, 64, 64);
  files.add_pair(module_of(1, Projection::down), rank, 96, 64);
}

}  // namespace lorikeet::model
