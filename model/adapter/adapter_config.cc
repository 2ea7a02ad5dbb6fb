#include "model/adapter/adapter_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "model/config/config_keys.h"
#include "model/config/json_fields.h"
#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr JsonLimits kLimits{1u << 20, 16, 100'000};
constexpr int64_t kMaxRank = 1 << 16;
constexpr double kMaxAlpha = 1e9;
constexpr int64_t kMaxQaloraGroup = 1 << 20;

// Settings that change nothing at inference, or are read below. (fan_in_fan_out is for Conv1D layers; PEFT turns it off
// for linear ones.)
constexpr std::array kHarmless = {"alpha_pattern",
                                  "auto_mapping",
                                  "base_model_name_or_path",
                                  "bias",
                                  "corda_config",
                                  "eva_config",
                                  "exclude_modules",
                                  "fan_in_fan_out",
                                  "inference_mode",
                                  "init_lora_weights",
                                  "layers_pattern",
                                  "layers_to_transform",
                                  "lora_alpha",
                                  "lora_bias",
                                  "lora_dropout",
                                  "lora_dtype",
                                  "lora_ga_config",
                                  "lorap_emb_lr",
                                  "lorap_lr_ratio",
                                  "megatron_core",
                                  "modules_to_save",
                                  "peft_type",
                                  "peft_version",
                                  "qalora_group_size",
                                  "r",
                                  "rank_pattern",
                                  "revision",
                                  "runtime_config",
                                  "swift_type",
                                  "target_modules",
                                  "task_type",
                                  "use_dora",
                                  "use_qalora",
                                  "use_rslora"};

struct Refusal {
  const char* key;
  const char* reason;
};
constexpr std::array kRefused = {
    Refusal{"use_bdlora", "block-diagonal LoRA is not served"},
    Refusal{"kasa_config", "KaSA is not served"},
    Refusal{"velora_config", "VeLoRA is not served"},
    Refusal{"arrow_config", "Arrow routing is not served"},
    Refusal{"monteclora_config", "MonteCLoRA is not served"},
    Refusal{"alora_invocation_tokens", "activated LoRA is not served"},
    Refusal{"trainable_token_indices", "retrained token embeddings are not served"},
    Refusal{"layer_replication", "replicated layers are not served"},
    Refusal{"target_parameters", "LoRA on parameters that are not modules is not served"},
    Refusal{"megatron_config", "Megatron's parallel layers are not served"},
    Refusal{"loftq_config", "LoftQ expects a base quantised for it"},
    Refusal{"ensure_weight_tying", "adapters tied over lm_head and the embedding are not served"},
};

Result<void> refuse_unserved(const JsonFields& fields, const json& root) {
  for (const auto& item : root.items()) {
    const std::string& key = item.key();
    if (std::find(kHarmless.begin(), kHarmless.end(), key) != kHarmless.end() || is_unset(item.value())) continue;
    if (is_note(key)) continue;
    const auto known = std::find_if(kRefused.begin(), kRefused.end(), [&](const Refusal& r) { return key == r.key; });
    return fields.wrong(key, known != kRefused.end() ? known->reason : "unknown setting");
  }
  return {};
}

// PiSSA, OLoRA, CorDA and LoRA-GA subtract the adapter's start from the base; LoftQ expects a base of its own.
Result<void> refuse_changed_base(const JsonFields& fields) {
  const json* init = fields.find("init_lora_weights");
  if (init == nullptr || init->is_boolean()) return {};
  const std::string name = init->is_string() ? init->get<std::string>() : "";
  for (const char* harmless : {"gaussian", "eva", "orthogonal", "mica", "true", "false"}) {
    if (name == harmless) return {};
  }
  return fields.wrong(
      "init_lora_weights",
      "this start changes the base weights, which are not changed here; convert the adapter when saving "
      "it (path_initial_model_for_weight_conversion)");
}

Result<void> check_kind(const JsonFields& fields) {
  auto type = fields.string_or("peft_type", "");
  auto task = fields.string_or("task_type", "CAUSAL_LM");
  if (!type) return tl::unexpected(type.error());
  if (!task) return tl::unexpected(task.error());
  if (!fields.has("peft_type")) return fields.wrong("peft_type", "is missing");
  if (*type != "LORA") return fields.wrong("peft_type", "only LORA is served");
  auto swift_type = fields.string_or("swift_type", "LORA");  // MS-Swift's own name for it, beside PEFT's
  if (!swift_type) return tl::unexpected(swift_type.error());
  if (*swift_type != "LORA") return fields.wrong("swift_type", "only LORA is served");
  if (*task != "CAUSAL_LM") return fields.wrong("task_type", "only CAUSAL_LM is served");
  return {};
}

// Modules that were trained and saved whole (the embedding and lm_head may be among them: whether they are still the
// base's, their tensors say), and biases.
Result<std::string> read_trained_beside(const JsonFields& fields) {
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  auto bias = fields.string_or("bias", "none");
  auto lora_bias = fields.boolean_or("lora_bias", false);
  if (!bias) return tl::unexpected(bias.error());
  if (!lora_bias) return tl::unexpected(lora_bias.error());
  if (*bias != "none") add(fmt::format("bias is {}: trained biases of the base are not served", *bias));
  if (*lora_bias) add("lora_bias is on: biases of lora_B are not served");
  const json* saved = fields.find("modules_to_save");
  if (saved == nullptr || is_unset(*saved)) return text;
  for (const json& item : saved->is_array() ? *saved : json::array({*saved})) {
    const std::string name = item.is_string() ? item.get<std::string>() : "";
    const std::string own = name.substr(name.rfind('.') + 1);
    if (own == "lm_head" || own == "embed_tokens" || own == "wte") continue;
    add(fmt::format("modules_to_save has {}: whole modules saved beside the LoRA are not served", brief(item)));
  }
  return text;
}

// The number of the first purely numeric segment of a module's name, and where that segment begins.
struct LayerNumber {
  int64_t number = 0;
  size_t begin = 0;
};
std::optional<LayerNumber> first_number(std::string_view module) {
  for (size_t begin = module.find('.'); begin != std::string_view::npos; begin = module.find('.', begin)) {
    ++begin;
    const size_t end = module.find('.', begin);
    if (end == std::string_view::npos) return std::nullopt;
    LayerNumber found{0, begin};
    const auto [rest, error] = std::from_chars(module.data() + begin, module.data() + end, found.number);
    if (error == std::errc() && rest == module.data() + end && module[begin] != '-') return found;
  }
  return std::nullopt;
}

}  // namespace

Result<AdapterConfig::ModuleSet> AdapterConfig::parse_modules(const json& value, const std::string& where) {
  ModuleSet set;
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    if (text == "all-linear") {
      set.all_linear = true;
      return set;
    }
    auto expression = ModulePattern::full(text);
    if (!expression) return fail("{}: {}", where, expression.error().message);
    set.expression = std::move(*expression);
    return set;
  }
  if (!value.is_array()) return fail("{}: must be a list of names or an expression", where);
  for (const json& name : value) {
    if (!name.is_string() || name.get<std::string>().empty()) return fail("{}: {} is not a name", where, brief(name));
    set.names.push_back(name.get<std::string>());
  }
  return set;
}

Result<bool> AdapterConfig::ModuleSet::holds(std::string_view module) const {
  if (all_linear) return module != "lm_head" && module != "model.embed_tokens" && module != "transformer.wte";
  if (expression) return expression->matches(module);
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    if (module == name) return true;
    return module.size() > name.size() && module.substr(module.size() - name.size()) == name &&
           module[module.size() - name.size() - 1] == '.';
  });
}

template <class Value>
Result<AdapterConfig::Patterns<Value>> AdapterConfig::parse_patterns(const ordered_json& root, const char* key,
                                                                     const std::string& where) {
  Patterns<Value> patterns;
  const auto object = root.find(key);
  if (object == root.end() || object->is_null()) return patterns;
  if (!object->is_object()) return fail("{}: {} must be an object", where, key);
  for (const auto& [expression, value] : object->items()) {
    auto pattern = ModulePattern::suffix(expression);
    if (!pattern) return fail("{}: {}: {}", where, key, pattern.error().message);
    const json plain = {{expression, json(value)}};
    const JsonFields fields(plain, fmt::format("{}: {}", where, key));
    if constexpr (std::is_same_v<Value, double>) {
      auto number = fields.number(expression, -kMaxAlpha, kMaxAlpha);
      if (!number) return tl::unexpected(number.error());
      patterns.emplace_back(std::move(*pattern), *number);
    } else {
      auto number = fields.integer(expression, 1, kMaxRank);
      if (!number) return tl::unexpected(number.error());
      patterns.emplace_back(std::move(*pattern), static_cast<Value>(*number));
    }
  }
  return patterns;
}

Result<void> AdapterConfig::parse_layers(const json& root, const std::string& where) {
  if (const auto it = root.find("layers_to_transform"); it != root.end() && !it->is_null()) {
    const json list = it->is_array() ? *it : json::array({*it});
    for (const json& layer : list) {
      if (!layer.is_number_integer()) return fail("{}: layers_to_transform: {} is not a layer", where, brief(layer));
      layers_.insert(layer.get<int64_t>());
    }
  }
  if (const auto it = root.find("layers_pattern"); it != root.end() && !is_unset(*it)) {
    const json list = it->is_array() ? *it : json::array({*it});
    for (const json& text : list) {
      if (!text.is_string()) return fail("{}: layers_pattern: {} is not an expression", where, brief(text));
      auto pattern = ModulePattern::suffix(text.get<std::string>());
      if (!pattern) return fail("{}: layers_pattern: {}", where, pattern.error().message);
      layer_patterns_.push_back(std::move(*pattern));
    }
  }
  return {};
}

Result<AdapterConfig> AdapterConfig::parse(std::string_view text, std::string_view where) {
  auto ordered = parse_ordered_json(text, where, kLimits);
  if (!ordered) return tl::unexpected(ordered.error());
  if (!ordered->is_object()) return fail("{}: the root is not a JSON object", where);
  const json root = *ordered;
  const std::string file(where);
  const JsonFields fields(root, file);
  if (auto ok = check_kind(fields); !ok) return tl::unexpected(ok.error());
  if (auto ok = refuse_unserved(fields, root); !ok) return tl::unexpected(ok.error());
  if (auto ok = refuse_changed_base(fields); !ok) return tl::unexpected(ok.error());

  AdapterConfig config;
  auto beside = read_trained_beside(fields);
  if (!beside) return tl::unexpected(beside.error());
  config.trained_beside_ = *std::move(beside);
  auto rank = fields.integer("r", 1, kMaxRank);
  auto alpha = fields.number("lora_alpha", -kMaxAlpha, kMaxAlpha);
  auto rslora = fields.boolean_or("use_rslora", false);
  auto dora = fields.boolean_or("use_dora", false);
  if (!rank) return tl::unexpected(rank.error());
  if (!alpha) return tl::unexpected(alpha.error());
  if (!rslora) return tl::unexpected(rslora.error());
  if (!dora) return tl::unexpected(dora.error());
  config.rank_ = static_cast<int32_t>(*rank);
  config.alpha_ = *alpha;
  config.use_rslora_ = *rslora;
  config.use_dora_ = *dora;
  auto qalora = fields.boolean_or("use_qalora", false);
  if (!qalora) return tl::unexpected(qalora.error());
  if (*qalora) {
    auto group = fields.integer_or("qalora_group_size", 16, 2, kMaxQaloraGroup);
    if (!group) return tl::unexpected(group.error());
    if (*dora) return fields.wrong("use_qalora", "QA-LoRA with DoRA is not served");
    config.qalora_group_ = static_cast<int32_t>(*group);
  }

  const json* target = fields.find("target_modules");
  if (target == nullptr) return fields.wrong("target_modules", "is missing");
  auto targets = parse_modules(*target, file + ": target_modules");
  if (!targets) return tl::unexpected(targets.error());
  config.targets_ = std::move(*targets);
  if (const json* exclude = fields.find("exclude_modules"); exclude != nullptr && !is_unset(*exclude)) {
    auto excluded = parse_modules(*exclude, file + ": exclude_modules");
    if (!excluded) return tl::unexpected(excluded.error());
    config.excluded_ = std::move(*excluded);
  }
  auto ranks = parse_patterns<int32_t>(*ordered, "rank_pattern", file);
  auto alphas = parse_patterns<double>(*ordered, "alpha_pattern", file);
  if (!ranks) return tl::unexpected(ranks.error());
  if (!alphas) return tl::unexpected(alphas.error());
  config.rank_pattern_ = std::move(*ranks);
  config.alpha_pattern_ = std::move(*alphas);
  if (auto ok = config.parse_layers(root, file); !ok) return tl::unexpected(ok.error());
  return config;
}

template <class Value>
Result<Value> AdapterConfig::value_of(const Patterns<Value>& patterns, Value otherwise, std::string_view module,
                                      std::string_view stored) {
  const bool has_another = !stored.empty() && stored != module;
  for (const std::string_view name : {has_another ? stored : module, module}) {
    for (const auto& [pattern, value] : patterns) {
      auto match = pattern.matches(name);
      if (!match) return tl::unexpected(match.error());
      if (*match) return value;
    }
    if (!has_another) break;
  }
  return otherwise;
}

Result<int32_t> AdapterConfig::rank_of(std::string_view module, std::string_view stored) const {
  return value_of(rank_pattern_, rank_, module, stored);
}

Result<float> AdapterConfig::scale_of(std::string_view module, std::string_view stored) const {
  auto rank = rank_of(module, stored);
  auto alpha = value_of(alpha_pattern_, alpha_, module, stored);
  if (!rank) return tl::unexpected(rank.error());
  if (!alpha) return tl::unexpected(alpha.error());
  return static_cast<float>(*alpha / (use_rslora_ ? std::sqrt(static_cast<double>(*rank)) : *rank));
}

Result<bool> AdapterConfig::layer_is_targeted(std::string_view module) const {
  if (layers_.empty()) return true;
  const auto layer = first_number(module);
  if (!layer || !layers_.count(layer->number)) return false;
  if (layer_patterns_.empty()) return true;
  for (const ModulePattern& pattern : layer_patterns_) {
    auto match = pattern.matches(module.substr(0, layer->begin - 1));
    if (!match || *match) return match;
  }
  return false;
}

Result<bool> AdapterConfig::targets(std::string_view module) const {
  auto excluded = excluded_.holds(module);
  if (!excluded) return excluded;
  if (*excluded) return false;
  auto held = targets_.holds(module);
  // PEFT filters layers of lists alone, not of expressions.
  if (!held || !*held || targets_.expression) return held;
  return layer_is_targeted(module);
}

}  // namespace lorikeet::model
