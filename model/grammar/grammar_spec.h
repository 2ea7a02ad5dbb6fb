// What a request wants its answer to be, in one of XGrammar's languages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

enum class GrammarKind : uint8_t { json_schema, regex, ebnf, lark, structural_tag };
inline constexpr int32_t kGrammarKinds = 5;

struct GrammarSpec {
  GrammarKind kind = GrammarKind::json_schema;
  std::string text;  // the schema (JSON), expression, grammar (GBNF from `root`, Lark from `start`) or tag (JSON)

  bool operator==(const GrammarSpec&) const = default;
};

inline constexpr size_t kMaxGrammarBytes = 64 << 10;

// A grammar of one of these texts.
GrammarSpec choice_grammar(const std::vector<std::string>& choices);

// Refuses what is too large, and of a schema what the grammar would pass over without a word, by its name. The text may
// still be wrong: compiling says so.
Result<void> check_grammar(const GrammarSpec& spec);

}  // namespace lorikeet::model
