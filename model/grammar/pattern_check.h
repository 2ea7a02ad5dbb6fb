// Bounds what compiling an expression or grammar costs, before it is tried: XGrammar goes down into brackets without a
// bound, writes repetitions out, and has no limit of time.
#pragma once

#include <string_view>

#include "kernels/base/error.h"
#include "model/grammar/grammar_spec.h"

namespace lorikeet::model {

// What a pattern, all those of a schema together, or a grammar may cost: about as many milliseconds of a core as with a
// vocabulary of 152,064 tokens.
inline constexpr double kMaxCompileCost = 2000;

// Of a regular expression, GBNF or Lark. What it costs to compile, an estimate by what is seen of it without parsing: it
// knows nothing of what rules hide. Errors: it is too much.
Result<double> pattern_cost(std::string_view pattern, GrammarKind kind);

}  // namespace lorikeet::model
