#include "model/checkpoint/tensor_names.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

namespace lorikeet::model {
namespace {

constexpr std::array<std::string_view, kNumProjections> kQwenV1Names = {
    "attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj", "mlp.w2", "mlp.w1", "mlp.c_proj"};

bool is_v1(const ModelConfig& config) {
  return config.architecture == Architecture::qwen;
}

std::string_view layer_prefix(const ModelConfig& config) {
  return is_v1(config) ? "transformer.h." : "model.layers.";
}

std::string_view local_name(const ModelConfig& config, Projection p) {
  return is_v1(config) ? kQwenV1Names[static_cast<size_t>(p)] : module_name_of(p);
}

bool is_fused(const ModelConfig& config, Projection p) {
  return is_v1(config) && (p == Projection::q || p == Projection::k || p == Projection::v);
}

}  // namespace

ModulePlace place_of(const ModelConfig& config, int32_t layer, Projection p) {
  ModulePlace place;
  place.module = fmt::format("{}{}.{}", layer_prefix(config), layer, local_name(config, p));
  place.outputs = output_size(config, p);
  if (is_fused(config, p)) {
    const int32_t q = output_size(config, Projection::q), kv = output_size(config, Projection::k);
    place.outputs = q + 2 * kv;
    place.first_output = p == Projection::q ? 0 : p == Projection::k ? q : q + kv;
  }
  return place;
}

bool has_bias(const ModelConfig& config, Projection p) {
  return config.architecture != Architecture::qwen3 && (p == Projection::q || p == Projection::k || p == Projection::v);
}

std::string embedding_name(const ModelConfig& config) {
  return is_v1(config) ? "transformer.wte" : "model.embed_tokens";
}

std::string final_norm_name(const ModelConfig& config) {
  return is_v1(config) ? "transformer.ln_f" : "model.norm";
}

std::string norm_name(const ModelConfig& config, int32_t layer, NormKind kind) {
  const std::string_view name = [&]() -> std::string_view {
    switch (kind) {
      case NormKind::input:
        return is_v1(config) ? "ln_1" : "input_layernorm";
      case NormKind::post_attention:
        return is_v1(config) ? "ln_2" : "post_attention_layernorm";
      case NormKind::q:
        return "self_attn.q_norm";
      case NormKind::k:
        return "self_attn.k_norm";
    }
    return "";
  }();
  return fmt::format("{}{}.{}", layer_prefix(config), layer, name);
}

std::vector<NormKind> norms_of(const ModelConfig& config) {
  if (config.architecture != Architecture::qwen3) return {NormKind::input, NormKind::post_attention};
  return {NormKind::input, NormKind::post_attention, NormKind::q, NormKind::k};
}

int32_t norm_size(const ModelConfig& config, NormKind kind) {
  return kind == NormKind::q || kind == NormKind::k ? config.head_dim : config.hidden_size;
}

std::optional<LayerModule> find_layer_module(const ModelConfig& config, std::string_view module) {
  const std::string_view prefix = layer_prefix(config);
  if (module.substr(0, prefix.size()) != prefix) return std::nullopt;
  module.remove_prefix(prefix.size());
  LayerModule found;
  const auto [end, error] = std::from_chars(module.data(), module.data() + module.size(), found.layer);
  if (error != std::errc() || end == module.data() + module.size() || *end != '.') return std::nullopt;
  const std::string_view digits = module.substr(0, static_cast<size_t>(end - module.data()));
  if (digits.front() == '-' || (digits.size() > 1 && digits.front() == '0')) return std::nullopt;
  if (found.layer >= config.num_layers) return std::nullopt;
  module.remove_prefix(digits.size() + 1);
  for (const Projection p : kProjections) {
    if (module == local_name(config, p)) found.projections.push_back(p);
  }
  if (found.projections.empty()) return std::nullopt;
  return found;
}

}  // namespace lorikeet::model
