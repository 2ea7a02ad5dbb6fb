// Tensors are saved under the name of the module that was saved: a causal model's "model.layers.0..." loses "model."
// where its inner model alone was saved, and gains the names of wrappers around it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorikeet::model {

class StoredNames {
 public:
  // From the names of all tensors of a checkpoint.
  explicit StoredNames(const std::vector<std::string>& names);

  // "model.layers.0.mlp.up_proj.weight" for whatever the checkpoint calls it.
  std::string name_of(std::string_view stored) const;

 private:
  std::string stored_prefix_, prefix_;  // "model.model." and "model."; both empty: names are taken as they are
};

// Whether a dotted name is `name` or ends with it: "h.0.wte.weight" ends with "wte.weight".
bool ends_with_name(std::string_view text, std::string_view name);

// Names of wrappers and inner modules that a model's name may begin with: "model", "_orig_mod", "module", ...
bool is_wrapper(std::string_view segment);

}  // namespace lorikeet::model
