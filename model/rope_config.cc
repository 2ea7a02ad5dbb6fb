#include "model/rope_config.h"

#include <algorithm>
#include <array>
#include <cmath>

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

double magnitude_scale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

Result<YarnScaling> read_yarn(const JsonFields& fields) {
  YarnScaling yarn;
  auto factor = fields.number("factor", 1, 1e4);
  // Qwen's scaling counts from the trained length. Taking max_position_embeddings instead would be silently wrong
  // (Qwen3 ships 40960 for 32768).
  auto original = fields.integer("original_max_position_embeddings", 1, 1 << 26);
  auto fast = fields.number_or("beta_fast", 32, 1e-3, 1e6);
  auto slow = fields.number_or("beta_slow", 1, 1e-3, 1e6);
  auto truncate = fields.boolean_or("truncate", true);
  if (!factor) return tl::unexpected(factor.error());
  if (!original) return tl::unexpected(original.error());
  if (!fast) return tl::unexpected(fast.error());
  if (!slow) return tl::unexpected(slow.error());
  if (!truncate) return tl::unexpected(truncate.error());
  if (!*truncate) return fields.wrong("truncate", "only true is served");
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
  yarn.attention_factor = static_cast<float>(*given);
  return yarn;
}

}  // namespace

Result<void> read_rope(const JsonFields& fields, ModelConfig& config) {
  auto theta = fields.number_or("rope_theta", 10000, 1, 1e12);
  if (!theta) return tl::unexpected(theta.error());
  config.rope_theta = *theta;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* value = fields.find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) return fields.wrong(key, "must be an object");
    const JsonFields rope(*value, fmt::format("{}: {}", fields.where(), key));
    for (const auto& [name, setting] : value->items()) {
      if (!setting.is_null() && std::find(kKnownKeys.begin(), kKnownKeys.end(), name) == kKnownKeys.end()) {
        return rope.wrong(name, "unknown setting");
      }
    }
    auto own_theta = rope.number_or("rope_theta", config.rope_theta, 1, 1e12);
    auto part = rope.number_or("partial_rotary_factor", 1, 0, 1);
    auto type = rope.string_or(rope.has("rope_type") ? "rope_type" : "type", "default");
    if (!own_theta) return tl::unexpected(own_theta.error());
    if (!part) return tl::unexpected(part.error());
    if (!type) return tl::unexpected(type.error());
    if (*part != 1) return rope.wrong("partial_rotary_factor", "only 1 is served");
    config.rope_theta = *own_theta;
    if (*type == "yarn") {
      auto yarn = read_yarn(rope);
      if (!yarn) return tl::unexpected(yarn.error());
      config.yarn = *yarn;
    } else if (*type != "default") {
      return rope.wrong(rope.has("rope_type") ? "rope_type" : "type", "only default and yarn are served");
    }
  }
  return {};
}

}  // namespace lorikeet::model
