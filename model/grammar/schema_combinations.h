// What a grammar would pass over in how the keywords of one schema stand beside each other: XGrammar reads of a schema
// either its $ref, const, enum, anyOf, oneOf or allOf, or what belongs to its type, and nothing else.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

// root: the whole schema, for references. type: the one that `schema` has where it says none (of names of properties);
// may be empty. cost: what looking costs is added (pattern_check.h). Errors: a sentence that names the keyword. What is
// below `schema` is not looked at.
Result<void> check_combinations(const nlohmann::json& schema, const nlohmann::json& root, std::string_view type,
                                double& cost);

}  // namespace lorikeet::model
