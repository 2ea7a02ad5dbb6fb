// How PEFT matches modules: regular expressions over full module names, with Python's meaning of match and fullmatch.
// The expressions come from files that nobody vouches for, so a match that takes too many steps is an error, not a
// wait. Source: huggingface/peft tuners/tuners_utils.py, utils/other.py (get_pattern_key).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// Threads: const methods from any number of threads.
class ModulePattern {
 public:
  // re.fullmatch(expression, name)
  static Result<ModulePattern> full(std::string_view expression);
  // re.match(rf"(.*\.)?({expression})$", name): the keys of rank_pattern and alpha_pattern
  static Result<ModulePattern> suffix(std::string_view expression);

  Result<bool> matches(std::string_view name) const;
  const std::string& expression() const { return expression_; }

 private:
  struct Code;
  static Result<ModulePattern> compile(std::string_view expression, std::string_view whole);

  std::string expression_;
  std::shared_ptr<const Code> code_;
};

}  // namespace lorikeet::model
