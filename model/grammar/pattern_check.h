// Bounds what compiling an expression or grammar costs, before it is tried: XGrammar goes down into brackets without a
// bound, and writes repetitions out.
#pragma once

#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// Of a regular expression, GBNF or Lark. Counts are of what is seen of them without parsing: brackets in quotes count, too.
Result<void> check_pattern(std::string_view pattern);

}  // namespace lorikeet::model
