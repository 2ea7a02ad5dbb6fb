#include "model/grammar/pattern_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/grammar/grammar_spec.h"

namespace lorikeet::model {
namespace {

using ::testing::HasSubstr;

std::string error_of(std::string_view pattern) {
  const auto checked = check_pattern(pattern);
  return checked ? "none" : checked.error().message;
}

std::string nested(size_t depth) {
  return std::string(depth, '(') + "a" + std::string(depth, ')');
}

TEST(PatternCheck, LetsPassWhatPeopleWrite) {
  for (const std::string& pattern :
       {std::string("^[A-Z]{3}-[0-9]{4}$"), std::string("(\\d{1,3}\\.){3}\\d{1,3}"), std::string(".{0,10000}"),
        std::string("root ::= \"{\" item{2,5} \"}\"\nitem ::= [a-z]+ | \"(\"\n"), std::string("a{,}b{x}c{"),
        std::string("\\{99999999\\}"), nested(90), std::string(60'000, 'a'), std::string("}]))")}) {
    EXPECT_EQ(error_of(pattern), "none") << pattern.substr(0, 60);
  }
}

TEST(PatternCheck, RefusesWhatCostsWithoutABound) {
  EXPECT_THAT(error_of(nested(30'000)), HasSubstr("brackets are open"));
  EXPECT_THAT(error_of("a{100000}"), HasSubstr("repetitions spell"));
  EXPECT_THAT(error_of("((a{100}){100}){100}"), HasSubstr("repetitions spell"));
  EXPECT_THAT(error_of("(abc){9999,}x{10000}"), HasSubstr("repetitions spell"));
  EXPECT_THAT(error_of("a{99999999999999999999999}"), HasSubstr("repetitions spell"));
}

TEST(PatternCheck, IsMadeOfEveryGrammar) {
  const std::string deep = nested(1000);
  for (const GrammarSpec& spec :
       {GrammarSpec{GrammarKind::regex, deep}, GrammarSpec{GrammarKind::ebnf, "root ::= " + deep},
        GrammarSpec{GrammarKind::lark, "start: " + deep},
        GrammarSpec{GrammarKind::json_schema, R"({"type": "string", "pattern": ")" + deep + "\"}"},
        GrammarSpec{GrammarKind::json_schema, R"({"patternProperties": {")" + deep + "\": {}}}"},
        GrammarSpec{GrammarKind::structural_tag, R"({"format": {"type": "regex", "pattern": ")" + deep + "\"}}"}}) {
    const auto checked = check_grammar(spec);
    ASSERT_FALSE(checked) << spec.text.substr(0, 40);
    EXPECT_THAT(checked.error().message, HasSubstr("brackets are open"));
  }
}

}  // namespace
}  // namespace lorikeet::model
