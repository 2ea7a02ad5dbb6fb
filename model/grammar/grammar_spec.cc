#include "model/grammar/grammar_spec.h"

#include "model/grammar/pattern_check.h"
#include "model/grammar/schema_check.h"

namespace lorikeet::model {
namespace {

// As a string of GBNF.
std::string gbnf_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

GrammarSpec choice_grammar(const std::vector<std::string>& choices) {
  std::string grammar = "root ::= ";
  for (size_t i = 0; i < choices.size(); ++i) grammar += (i == 0 ? "" : " | ") + gbnf_string(choices[i]);
  return {GrammarKind::ebnf, std::move(grammar)};
}

Result<void> check_grammar(const GrammarSpec& spec) {
  if (spec.text.empty()) return fail("it is empty");
  if (spec.text.size() > kMaxGrammarBytes) {
    return fail("it has {} bytes, more than {}", spec.text.size(), kMaxGrammarBytes);
  }
  if (spec.kind == GrammarKind::json_schema) return check_schema(spec.text);
  if (spec.kind == GrammarKind::structural_tag) return check_tag(spec.text);
  if (auto cost = pattern_cost(spec.text, spec.kind); !cost) return tl::unexpected(cost.error());
  return {};
}

}  // namespace lorikeet::model
