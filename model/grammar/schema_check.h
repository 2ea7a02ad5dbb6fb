// Names what a JSON schema asks for and a grammar cannot hold to. XGrammar passes over such keywords with a warning; here
// they are refused, since an answer would seem to be checked by them.
// Source: XGrammar 0.2.9, json_schema_converter.cc.
#pragma once

#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// Errors: "properties.a: the keyword \"not\" is not supported".
Result<void> check_schema(std::string_view schema);

// The same, and what it costs to compile (pattern_check.h).
Result<double> schema_cost(std::string_view schema);

// All schemas, expressions and grammars in a structural tag.
Result<void> check_tag(std::string_view tag);

}  // namespace lorikeet::model
