#include "model/config/rope_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 12> kKnownKeys = {"type",
                                                         "rope_type",
                                                         "factor",
                                                         "original_max_position_embeddings",
                                                         "attention_factor",
                                                         "beta_fast",
                                                         "beta_slow",
                                                         "mscale",
                                                         "mscale_all_dim",
                                                         "truncate",
                                                         "rope_theta",
                                                         "partial_rotary_factor"};

// "finetuned": how the model came about. The others are vLLM's, and say nothing at these values.
bool changes_nothing(std::string_view key, const json& value) {
  if (key == "finetuned") return true;
  if (key == "apply_yarn_scaling") return value == json(true);
  return (key == "extrapolation_factor" || key == "attn_factor") && value == json(1);
}

double magnitude_scale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

Result<YarnScaling> read_yarn(const JsonFields& fields, const JsonFields& config) {
  YarnScaling yarn;
  auto factor = fields.number("factor", 1, 1e4);
  // Qwen's scaling counts from the trained length. Taking max_position_embeddings instead would be silently wrong
  // (Qwen3 ships 40960 for 32768).
  const char* const original_key = "original_max_position_embeddings";
  auto original =
      (fields.has(original_key) || !config.has(original_key) ? fields : config).integer(original_key, 1, 1 << 26);
  auto fast = fields.number_or("beta_fast", 32, 1e-3, 1e6);
  auto slow = fields.number_or("beta_slow", 1, 1e-3, 1e6);
  auto truncate = fields.boolean_or("truncate", true);
  if (!factor) return tl::unexpected(factor.error());
  if (!original) return tl::unexpected(original.error());
  if (!fast) return tl::unexpected(fast.error());
  if (!slow) return tl::unexpected(slow.error());
  if (!truncate) return tl::unexpected(truncate.error());
  auto mscale = fields.number_or("mscale", 0, 0, 100);
  auto mscale_all = fields.number_or("mscale_all_dim", 0, 0, 100);
  if (!mscale) return tl::unexpected(mscale.error());
  if (!mscale_all) return tl::unexpected(mscale_all.error());
  double attention = magnitude_scale(*factor, 1);
  if (*mscale != 0 && *mscale_all != 0) {
    attention = magnitude_scale(*factor, *mscale) / magnitude_scale(*factor, *mscale_all);
  }
  auto given = fields.number_or("attention_factor", attention, 1e-6, 1e3);
  if (!given) return tl::unexpected(given.error());
  yarn.factor = static_cast<float>(*factor);
  yarn.original_max_position_embeddings = static_cast<int32_t>(*original);
  yarn.beta_fast = static_cast<float>(*fast);
  yarn.beta_slow = static_cast<float>(*slow);
  yarn.truncate = *truncate;
  yarn.attention_factor = static_cast<float>(*given);
  return yarn;
}

// One of the two places that speak of RoPE.
struct RopeSettings {
  std::optional<double> theta;
  std::optional<YarnScaling> yarn;
};

Result<RopeSettings> read_settings(const JsonFields& rope, const json& object, const JsonFields& config) {
  const char* type_key = rope.has("rope_type") ? "rope_type" : "type";
  auto type = rope.string_or(type_key, "default");
  if (!type) return tl::unexpected(type.error());
  if (*type != "default" && *type != "yarn") return rope.wrong(type_key, "only default and yarn are served");
  for (const auto& [name, setting] : object.items()) {
    if (changes_nothing(name, setting)) continue;
    if (!setting.is_null() && std::find(kKnownKeys.begin(), kKnownKeys.end(), name) == kKnownKeys.end()) {
      return rope.wrong(name, "unknown setting");
    }
  }
  RopeSettings settings;
  if (rope.has("rope_theta")) {
    auto theta = rope.number("rope_theta", 1, 1e12);
    if (!theta) return tl::unexpected(theta.error());
    settings.theta = *theta;
  }
  auto part = rope.number_or("partial_rotary_factor", 1, 0, 1);
  if (!part) return tl::unexpected(part.error());
  if (const json* older = rope.find("type"); older != nullptr && *older != json(*type)) {
    return rope.wrong("type", fmt::format("rope_type says {}", *type));  // transformers goes by the one or the other
  }
  if (*part != 1) return rope.wrong("partial_rotary_factor", "only 1 is served");
  if (*type == "yarn") {
    auto yarn = read_yarn(rope, config);
    if (!yarn) return tl::unexpected(yarn.error());
    settings.yarn = *yarn;
    // transformers takes this one first.
    auto outer =
        config.integer_or("original_max_position_embeddings", yarn->original_max_position_embeddings, 1, 1 << 26);
    if (!outer) return tl::unexpected(outer.error());
    if (*outer != yarn->original_max_position_embeddings) {
      return rope.wrong("original_max_position_embeddings", fmt::format("beside the scaling it is {}", *outer));
    }
  }
  return settings;
}

}  // namespace

Result<void> read_rope(const JsonFields& fields, ModelConfig& config) {
  auto part = fields.number_or("partial_rotary_factor", 1, 0, 1);
  if (!part) return tl::unexpected(part.error());
  if (*part != 1) return fields.wrong("partial_rotary_factor", "only 1 is served");
  auto outer_theta = fields.number_or("rope_theta", 10000, 1, 1e12);
  if (!outer_theta) return tl::unexpected(outer_theta.error());
  std::optional<double> theta;
  if (fields.has("rope_theta")) theta = *outer_theta;
  std::optional<RopeSettings> scaling;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* value = fields.find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) return fields.wrong(key, "must be an object");
    if (value->empty()) continue;
    const JsonFields rope(*value, fmt::format("{}: {}", fields.where(), key));
    auto settings = read_settings(rope, *value, fields);
    if (!settings) return tl::unexpected(settings.error());
    // A newer file has rope_parameters; who stretches its context by hand adds a rope_scaling, which then counts.
    if (scaling && settings->yarn && settings->yarn != scaling->yarn) {
      return fields.wrong(key, "differs from rope_scaling");
    }
    if (theta && settings->theta && *settings->theta != *theta) {
      return rope.wrong("rope_theta", fmt::format("elsewhere in the file it is {}", *theta));
    }
    if (settings->theta) theta = settings->theta;
    if (settings->yarn) config.yarn = settings->yarn;
    if (!scaling) scaling = *settings;
  }
  config.rope_theta = theta.value_or(10000);
  return {};
}

}  // namespace lorikeet::model
