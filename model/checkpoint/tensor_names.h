// What the modules of each architecture are called in checkpoints and adapters.
// Sources: transformers modeling_qwen2.py, Qwen v1's modeling_qwen.py.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::model {

// Where the weight of one projection lies: rows [first_output, first_output + output_size) of a module's weight, which
// has `outputs` rows (Qwen v1 fuses q, k and v into c_attn; elsewhere the module is the projection).
struct ModulePlace {
  std::string module;  // "model.layers.0.self_attn.q_proj", "transformer.h.0.attn.c_attn"
  int32_t first_output = 0;
  int32_t outputs = 0;
};

ModulePlace place_of(const ModelConfig& config, int32_t layer, Projection p);

// Whether the module of a projection has a bias of its own (others may carry an all-zero one).
bool has_bias(const ModelConfig& config, Projection p);

std::string embedding_name(const ModelConfig& config);   // without ".weight"
std::string final_norm_name(const ModelConfig& config);  // without ".weight"
inline constexpr std::string_view kLmHeadName = "lm_head";

enum class NormKind : uint8_t { input, post_attention, q, k };
std::string norm_name(const ModelConfig& config, int32_t layer, NormKind kind);  // without ".weight"
std::vector<NormKind> norms_of(const ModelConfig& config);                       // of every layer
int32_t norm_size(const ModelConfig& config, NormKind kind);

// The projections that a module's name stands for: one, or q, k and v for c_attn.
struct LayerModule {
  int32_t layer = 0;
  std::vector<Projection> projections;
};
std::optional<LayerModule> find_layer_module(const ModelConfig& config, std::string_view module);

}  // namespace lorikeet::model
