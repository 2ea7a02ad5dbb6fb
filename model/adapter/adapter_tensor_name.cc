#include "model/adapter/adapter_tensor_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "model/checkpoint/stored_names.h"

namespace lorikeet::model {
namespace {

using Kind = AdapterTensorName::Kind;
using Segments = std::vector<std::string_view>;

struct Part {
  std::string_view segment;
  Kind kind;
  bool needs_weight;  // ".weight" must follow: it is a module, not a parameter
};
constexpr std::array<Part, 5> kParts = {{{"lora_A", Kind::a, true},
                                         {"lora_B", Kind::b, true},
                                         {"lora_magnitude_vector", Kind::magnitude, false},
                                         {"lora_embedding_A", Kind::embedding_a, false},
                                         {"lora_embedding_B", Kind::embedding_b, false}}};

Segments split(std::string_view name) {
  Segments segments;
  for (size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.')) {
    segments.push_back(name.substr(0, dot));
    name.remove_prefix(dot + 1);
  }
  segments.push_back(name);
  return segments;
}

std::string join(Segments::const_iterator begin, Segments::const_iterator end) {
  return fmt::format("{}", fmt::join(begin, end, "."));
}

bool is_one_of(std::string_view segment, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), segment) != names.end();
}

std::string stored_module_of(const Segments& segments) {
  const bool peft = segments.size() > 2 && segments[0] == "base_model" && segments[1] == "model";
  return join(segments.begin() + (peft ? 2 : 0), segments.end());
}

// The name that a causal model gives the module, whatever was wrapped around it.
std::string module_of(Segments segments) {
  const auto own = std::find_if_not(segments.begin(), segments.end(), is_wrapper);
  if (own == segments.end()) return stored_module_of(segments);
  const bool qwen2 = is_one_of(*own, {"layers", "embed_tokens", "norm"}), v1 = is_one_of(*own, {"h", "wte", "ln_f"});
  if (!qwen2 && !v1 && *own != "lm_head") return stored_module_of(segments);
  segments.erase(segments.begin(), own);
  segments.erase(std::remove_if(segments.begin(), segments.end(), is_wrapper), segments.end());
  return (qwen2 ? "model." : v1 ? "transformer." : "") + join(segments.begin(), segments.end());
}

// With lm_head or the embedding among the targets, or in modules_to_save, PEFT saves whole weights beside the adapter.
std::optional<AdapterTensorName> parse_base_copy(const Segments& segments) {
  const auto table = std::find_if(segments.begin(), segments.end(), [](std::string_view segment) {
    return is_one_of(segment, {"lm_head", "embed_tokens", "wte"});
  });
  if (table == segments.end() || segments.back() != "weight") return std::nullopt;
  const auto rest = segments.end() - 1 - (table + 1);  // between the module and ".weight"
  const bool plain = rest == 0;
  const bool wrapped = rest == 1 && is_one_of(table[1], {"base_layer", "original_module", "modules_to_save"});
  const bool named = rest == 2 && table[1] == "modules_to_save";
  if (!plain && !wrapped && !named) return std::nullopt;
  const Segments module(segments.begin(), table + 1);
  return AdapterTensorName{Kind::base_copy, module_of(module), stored_module_of(module), ""};
}

}  // namespace

std::optional<AdapterTensorName> parse_adapter_tensor_name(std::string_view name) {
  const Segments segments = split(name);
  for (const Part& part : kParts) {
    const auto at = std::find(segments.begin(), segments.end(), part.segment);
    if (at == segments.end()) continue;
    const Segments module(segments.begin(), at);
    Segments rest(at + 1, segments.end());
    const bool weight = !rest.empty() && rest.back() == "weight";
    if (weight) rest.pop_back();
    if (module.empty() || rest.size() > 1 || (part.needs_weight && !weight)) return std::nullopt;
    return AdapterTensorName{part.kind, module_of(module), stored_module_of(module),
                             rest.empty() ? "" : std::string(rest[0])};
  }
  return parse_base_copy(segments);
}

}  // namespace lorikeet::model
