// adapter_config.json of PEFT: what a LoRA adapter is, and everything that this engine would get silently wrong
// refused. Sources: huggingface/peft tuners/lora/config.py, tuners/tuners_utils.py; formats reference, section 5.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/error.h"
#include "model/adapter/module_pattern.h"

namespace lorikeet::model {

class AdapterConfig {
 public:
  // `text` is the file's content; `where` names it in errors.
  static Result<AdapterConfig> parse(std::string_view text, std::string_view where);

  bool uses_dora() const { return use_dora_; }
  bool uses_rslora() const { return use_rslora_; }
  int32_t qalora_group() const { return qalora_group_; }  // inputs that QA-LoRA takes as one; 0: it is none

  // Of a module's full name, such as "model.layers.0.self_attn.q_proj". `stored`, where it is not empty, is the name that
  // the framework saw: patterns are of that one, else of the other.
  Result<int32_t> rank_of(std::string_view module, std::string_view stored = {}) const;
  Result<float> scale_of(std::string_view module, std::string_view stored = {}) const;  // alpha / r, or alpha / sqrt(r)
  Result<bool> targets(std::string_view module) const;

  // What the file says was trained beside the LoRA, and is not served, in words; empty: nothing. Whether it is there
  // the tensors say.
  const std::string& trained_beside() const { return trained_beside_; }

  // The entries of target_modules; empty where it is an expression or all-linear.
  const std::vector<std::string>& target_names() const { return targets_.names; }

 private:
  template <class Value>
  using Patterns = std::vector<std::pair<ModulePattern, Value>>;  // in the file's order: the first match counts

  struct ModuleSet {
    std::vector<std::string> names;           // whole names, or what a name ends with after a dot
    std::optional<ModulePattern> expression;  // of the whole name
    bool all_linear = false;                  // every linear layer but lm_head

    Result<bool> holds(std::string_view module) const;
  };

  static Result<ModuleSet> parse_modules(const nlohmann::json& value, const std::string& where);
  template <class Value>
  static Result<Patterns<Value>> parse_patterns(const nlohmann::ordered_json& root, const char* key,
                                                const std::string& where);
  Result<void> parse_layers(const nlohmann::json& root, const std::string& where);
  Result<bool> layer_is_targeted(std::string_view module) const;
  template <class Value>
  static Result<Value> value_of(const Patterns<Value>& patterns, Value otherwise, std::string_view module,
                                std::string_view stored);

  int32_t rank_ = 0;
  double alpha_ = 0;
  bool use_rslora_ = false, use_dora_ = false;
  int32_t qalora_group_ = 0;
  std::string trained_beside_;
  Patterns<int32_t> rank_pattern_;
  Patterns<double> alpha_pattern_;
  ModuleSet targets_, excluded_;
  std::set<int64_t> layers_;  // layers_to_transform; empty: all
  std::vector<ModulePattern> layer_patterns_;
};

}  // namespace lorikeet::model
