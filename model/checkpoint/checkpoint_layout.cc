#include "model/checkpoint/checkpoint_layout.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "model/checkpoint/linear_loader.h"
#include "model/checkpoint/quantised_module.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

std::string_view packed_name(QuantMethod method) {
  return method == QuantMethod::compressed_tensors ? "weight_packed" : "qweight";
}

// The tensors of a quantised module, less the bias.
std::vector<std::string_view> quantised_suffixes(QuantMethod method) {
  switch (method) {
    case QuantMethod::none:
      return {};
    case QuantMethod::gptq:
    case QuantMethod::gptq_v2:
    case QuantMethod::awq:
      return {"qweight", "qzeros", "scales", "g_idx"};
    case QuantMethod::compressed_tensors:
      return {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"};
  }
  return {};
}

bool is_packed_name(const std::string& tensor) {
  return tensor.ends_with(".qweight") || tensor.ends_with(".weight_packed");
}

Result<void> refuse_strange_tensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  std::set<std::string, std::less<>> whole;  // names that are a tensor of their own
  whole.insert(embedding_name(config) + ".weight");
  whole.insert(final_norm_name(config) + ".weight");
  whole.insert(std::string(kLmHeadName) + ".weight");
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (const NormKind kind : norms_of(config)) whole.insert(norm_name(config, layer, kind) + ".weight");
  }
  std::vector<std::string_view> suffixes = quantised_suffixes(config.quant.method);
  suffixes.insert(suffixes.end(), {"weight", "bias"});
  std::vector<std::string> strange;
  for (const std::string& name : checkpoint.names()) {
    if (whole.count(name)) continue;
    const size_t dot = name.rfind('.');
    const std::string_view module = std::string_view(name).substr(0, dot == std::string::npos ? 0 : dot);
    const std::string_view suffix = dot == std::string::npos ? "" : std::string_view(name).substr(dot + 1);
    // A table that old transformers versions saved; it follows from rope_theta.
    if (suffix == "inv_freq") continue;
    const bool is_suffix = std::find(suffixes.begin(), suffixes.end(), suffix) != suffixes.end();
    if (is_suffix && find_layer_module(config, module)) continue;
    if (is_suffix && suffix != "bias" && module == kLmHeadName && !config.tie_word_embeddings) continue;
    strange.push_back(name);
  }
  if (strange.empty()) return {};
  if (config.quant.method == QuantMethod::none && std::any_of(strange.begin(), strange.end(), is_packed_name)) {
    return fail(
        "{}: the weights are quantised, and neither config.json (quantization_config) nor a file beside it says "
        "how: {}",
        checkpoint.dir().string(), *std::find_if(strange.begin(), strange.end(), is_packed_name));
  }
  const auto of_head = [](const std::string& tensor) { return tensor.starts_with(kLmHeadName); };
  if (std::all_of(strange.begin(), strange.end(), of_head) &&
      std::any_of(strange.begin(), strange.end(), is_packed_name)) {
    return fail("{}: config.json ties the embeddings, yet lm_head is there of its own, quantised: {}",
                checkpoint.dir().string(), strange[0]);
  }
  const size_t count = strange.size();
  strange.resize(std::min<size_t>(count, 4));
  return fail("{}: {} tensors that {} (quantisation: {}, {} layers) has no place for: {}{}", checkpoint.dir().string(),
              count, name_of(config.architecture), name_of(config.quant.method), config.num_layers,
              fmt::join(strange, ", "), count > strange.size() ? ", ..." : "");
}

Result<void> check_floats(const Checkpoint& checkpoint, const std::string& name, std::initializer_list<int64_t> shape) {
  auto tensor = checkpoint.require(name);
  return tensor ? expect_floats(*tensor, shape) : tl::unexpected(tensor.error());
}

Result<void> check_linear_shapes(const Checkpoint& checkpoint, const ModelConfig& config, int32_t layer, Projection p) {
  const ModulePlace place = place_of(config, layer, p);
  const int32_t inputs = input_size(config, p);
  const auto dense = checkpoint.find(place.module + ".weight");
  if (is_quantised(checkpoint, config.quant, place.module)) {
    if (dense) return fail("{}: {} is there both quantised and not", checkpoint.dir().string(), place.module);
    auto module = find_quantised_module(checkpoint, config.quant, place.module, place.outputs, inputs);
    if (!module) return tl::unexpected(module.error());
  } else {
    if (!dense) {
      return fail("{}: no tensor named {}.weight{}", checkpoint.dir().string(), place.module,
                  config.quant.method == QuantMethod::none ? "" : ", nor its quantised form");
    }
    // Weights beside the scales that they would be quantised with are not what such a checkpoint computes with.
    for (const std::string_view suffix : quantised_suffixes(config.quant.method)) {
      if (!checkpoint.has(fmt::format("{}.{}", place.module, suffix))) continue;
      return fail("{}: {}.{} is there, {} is not: the weights are not packed", checkpoint.dir().string(), place.module,
                  suffix, packed_name(config.quant.method));
    }
    if (auto ok = expect_floats(*dense, {place.outputs, inputs}); !ok) return ok;
  }
  const auto bias = checkpoint.find(place.module + ".bias");
  if (bias) return expect_floats(*bias, {place.outputs});
  if (has_bias(config, p)) return fail("{}: no tensor named {}.bias", checkpoint.dir().string(), place.module);
  return {};
}

Result<void> check_layer(const Checkpoint& checkpoint, const ModelConfig& config, int32_t layer) {
  for (const NormKind kind : norms_of(config)) {
    const std::string name = norm_name(config, layer, kind) + ".weight";
    if (auto ok = check_floats(checkpoint, name, {norm_size(config, kind)}); !ok) return ok;
  }
  for (const Projection p : kProjections) {
    if (auto ok = check_linear_shapes(checkpoint, config, layer, p); !ok) return ok;
  }
  return {};
}

}  // namespace

Result<void> check_layout(const Checkpoint& checkpoint, const ModelConfig& config) {
  if (auto ok = refuse_strange_tensors(checkpoint, config); !ok) return ok;
  const std::string head = std::string(kLmHeadName) + ".weight";
  if (auto ok = check_floats(checkpoint, embedding_name(config) + ".weight", {config.vocab_size, config.hidden_size});
      !ok) {
    return ok;
  }
  const bool quantised = is_quantised(checkpoint, config.quant, std::string(kLmHeadName));
  if (!config.tie_word_embeddings && quantised) {
    if (checkpoint.has(head)) {
      return fail("{}: {} is there both quantised and not", checkpoint.dir().string(), kLmHeadName);
    }
    auto module = find_quantised_module(checkpoint, config.quant, std::string(kLmHeadName), config.vocab_size,
                                        config.hidden_size);
    if (!module) return tl::unexpected(module.error());
  } else if (!config.tie_word_embeddings || checkpoint.has(head)) {
    if (auto ok = check_floats(checkpoint, head, {config.vocab_size, config.hidden_size}); !ok) return ok;
  }
  if (auto ok = check_floats(checkpoint, final_norm_name(config) + ".weight", {config.hidden_size}); !ok) return ok;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    if (auto ok = check_layer(checkpoint, config, layer); !ok) return ok;
  }
  return {};
}

}  // namespace lorikeet::model
