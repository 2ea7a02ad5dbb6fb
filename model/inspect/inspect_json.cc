#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/inspect/inspect.h"

namespace lorikeet::model {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(const std::optional<std::string>& text) {
  return text ? Json(*text) : Json(nullptr);
}

Json to_json(const ModelConfig& config) {
  Json json = {{"architecture", name_of(config.architecture)},
               {"layers", config.num_layers},
               {"hidden_size", config.hidden_size},
               {"heads", config.num_heads},
               {"kv_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"intermediate_size", config.intermediate_size},
               {"vocab_size", config.vocab_size},
               {"max_position_embeddings", config.max_position_embeddings},
               {"rope_theta", config.rope_theta},
               {"yarn_factor", nullptr},
               {"tie_word_embeddings", config.tie_word_embeddings}};
  if (config.yarn) json["yarn_factor"] = config.yarn->factor;
  return json;
}

// How many groups of inputs the weights of each width have.
Json groups_of(const ModelConfig& config) {
  if (config.quant.method == QuantMethod::none) return nullptr;
  const auto groups = [&](int32_t inputs) {
    const int32_t size = config.quant.group_size < 0 ? inputs : config.quant.group_size;
    return (inputs + size - 1) / size;
  };
  return {{"hidden", groups(config.hidden_size)},
          {"attention", groups(config.num_heads * config.head_dim)},
          {"mlp", groups(config.intermediate_size)}};
}

}  // namespace

Json to_json(const CheckpointReport& report) {
  Json json = {{"kind", "checkpoint"},
               {"directory", report.dir.string()},
               {"servable", !report.refusal},
               {"reason", or_null(report.refusal)}};
  if (report.config) {
    const ModelConfig& config = *report.config;
    json["model"] = to_json(config);
    const bool quantised = config.quant.method != QuantMethod::none;
    json["quantisation"] = {{"method", name_of(config.quant.method)},
                            {"bits", quantised ? Json(config.quant.bits) : Json(nullptr)},
                            {"group_size", quantised ? Json(config.quant.group_size) : Json(nullptr)},
                            {"groups", groups_of(config)},
                            {"symmetric", quantised ? Json(config.quant.symmetric) : Json(nullptr)},
                            {"act_order", report.act_order},
                            {"quantised_modules", report.quantised_modules},
                            {"eight_bit_modules", report.eight_bit_modules},
                            {"eight_bit_weights", report.eight_bit_weights},
                            {"dense_modules", report.dense_modules}};
  }
  json["tensors"] = report.tensors;
  json["bytes"] = report.file_bytes;
  json["tensor_parallel"] = Json::array();
  for (const SizeReport& size : report.sizes) {
    Json row = {{"size", size.size},
                {"reason", or_null(size.refusal)},
                {"weight_bytes_per_rank", size.weight_bytes},
                {"neurons_per_rank", size.neurons},
                {"kv_bytes_per_token_per_rank", size.kv_bytes_per_token},
                {"tokens_that_fit", Json::array()}};
    for (const MemoryFit& fit : size.fits) {
      row["tokens_that_fit"].push_back({{"memory_bytes", fit.memory}, {"tokens", fit.tokens}});
    }
    json["tensor_parallel"].push_back(std::move(row));
  }
  return json;
}

Json to_json(const AdapterReport& report) {
  Json json = {{"kind", "adapter"},
               {"directory", report.dir.string()},
               {"servable", report.refusal  ? Json(false)
                            : report.judged ? Json(true)
                                            : Json(nullptr)},
               {"reason", or_null(report.refusal)},
               {"digest", report.digest},
               {"rslora", report.rslora},
               {"dora", report.dora},
               {"bytes", report.file_bytes},
               {"matched_modules", nullptr},
               {"unmatched_modules", nullptr},
               {"modules", Json::array()},
               {"targets_without_tensors", report.targets_without_tensors},
               {"strange_tensors", report.strange_tensors},
               {"tensor_parallel", Json::array()}};
  if (report.judged) {
    const auto matched = std::count_if(report.modules.begin(), report.modules.end(),
                                       [](const AdapterModuleReport& module) { return module.matched; });
    json["matched_modules"] = matched;
    json["unmatched_modules"] = static_cast<int64_t>(report.modules.size()) - matched;
  }
  for (const AdapterModuleReport& module : report.modules) {
    json["modules"].push_back({{"module", module.module},
                               {"rank", module.rank},
                               {"scale", module.scale},
                               {"dtype", module.dtype},
                               {"dora", module.dora},
                               {"matched", report.judged ? Json(module.matched) : Json(nullptr)}});
  }
  for (const AdapterSizeReport& size : report.sizes) {
    json["tensor_parallel"].push_back(
        {{"size", size.size}, {"reason", or_null(size.refusal)}, {"bytes_per_rank", size.bytes}});
  }
  return json;
}

}  // namespace lorikeet::model
