#include "model/grammar/pattern_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/grammar/grammar_spec.h"

namespace lorikeet::model {
namespace {

using ::testing::HasSubstr;

std::string error_of(std::string_view pattern, GrammarKind kind = GrammarKind::regex) {
  const auto checked = pattern_cost(pattern, kind);
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

std::string times(size_t count, const std::string& text) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

// Each took XGrammar 2 s to over a minute with 152,064 tokens.
TEST(PatternCheck, RefusesWhatTakesTooLong) {
  for (const std::string& pattern :
       {std::string(1000, '.'), times(1000, "[^a]"), times(50, "[^a]*[^b]*"), times(25, "[^a]*[^b]*"), times(300, "a?"),
        times(2000, "[a-z]"), times(30, "(.*|[^a]{0,3})"), times(40, "(x|[^a]*)?"), times(200, "[\u4e00-\u9fff]"),
        times(300, "a?^"), times(300, "a?$")}) {
    EXPECT_THAT(error_of(pattern), HasSubstr("too long to compile")) << pattern.substr(0, 60);
  }
}

TEST(PatternCheck, TakesRulesForWhatMayBeLeftOut) {
  const std::string rule = "\na ::= [^x]*";
  EXPECT_THAT(error_of("root ::= " + times(500, "a ") + rule, GrammarKind::ebnf), HasSubstr("too long to compile"));
  EXPECT_EQ(error_of("root ::= " + times(500, "a \"x\" ") + rule, GrammarKind::ebnf), "none");
  EXPECT_EQ(error_of("root ::= a" + times(500, " | a") + rule, GrammarKind::ebnf), "none");
}

TEST(PatternCheck, LetsPassWhatOnlyLooksLikeIt) {
  for (const std::string& pattern : {times(20, "[^,]*,"), times(100, "(https?|ftp)://"), std::string(".*a.*b.*c"),
                                     times(100, "-?[0-9]+,"), std::string("[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+")}) {
    EXPECT_EQ(error_of(pattern), "none") << pattern.substr(0, 60);
  }
  EXPECT_EQ(error_of("root ::= " + times(1000, "\"Wait... what? [^a]* (\" | "), GrammarKind::ebnf), "none");
  EXPECT_EQ(error_of("start: " + times(1000, "\"Wait... what?\" | "), GrammarKind::lark), "none");
}

// Quotes, brackets and comments mean something else in an expression of Lark's, and brackets something else outside.
TEST(PatternCheck, SeesWhatStandsBehindExpressionsAndComments) {
  const std::string costly = times(40, "[^a]?"), lark = "/" + costly + "/";
  for (const std::string& grammar : {"start: " + lark, "start: /\"/ " + lark, "start: /[\"]/ " + lark + " \"]\"",
                                     "start: [/x/ " + lark + " ]", "start: b // [\"\nb: " + lark + "// ]"}) {
    EXPECT_THAT(error_of(grammar, GrammarKind::lark), HasSubstr("too long to compile")) << grammar.substr(0, 60);
  }
  EXPECT_THAT(error_of("root ::= b # [\nb ::= " + costly, GrammarKind::ebnf), HasSubstr("too long to compile"));
  EXPECT_THAT(error_of("start: " + std::string(1000, '['), GrammarKind::lark), HasSubstr("brackets are open"));
  EXPECT_THAT(error_of("start: /" + nested(1000) + "/", GrammarKind::lark), HasSubstr("brackets are open"));
  for (const char* grammar : {"start: /\\/\"/ [\"a\" | /b+/] // it's [^a\n", "start: /", "start: /\\",
                              "start: /a\nb: \"c\"", "start: ] ] \"a\" )"}) {
    EXPECT_EQ(error_of(grammar, GrammarKind::lark), "none") << grammar;
  }
}

// As XGrammar's own readers do.
TEST(PatternCheck, EndsCommentsAndExpressionsWhereTheLibraryDoes) {
  const std::string costly = times(40, "[^a]?"), lark = "/" + costly + "/";
  for (const std::string& grammar :
       {"start: b # x\rb: " + lark, "start: b // x\rb: " + lark, "start: /a\n\"" + costly + "/", "start: <\"> " + lark,
        "start: \"a\"%ignore " + lark}) {
    EXPECT_THAT(error_of(grammar, GrammarKind::lark), HasSubstr("too long to compile")) << grammar.substr(0, 60);
  }
  EXPECT_THAT(error_of("root ::= b # x\rb ::= " + costly, GrammarKind::ebnf), HasSubstr("too long to compile"));
}

TEST(PatternCheck, CountsRepetitionsOfGrammarsHoweverTheyAreWritten) {
  for (const char* repetition :
       {"{30000}", "\t{30000}", "\n{30000}", " { 30000 }", "{ 1 , # x}\n30000}", "{00000000030000}"}) {
    EXPECT_THAT(error_of(std::string("root ::= \"a\"") + repetition, GrammarKind::ebnf), HasSubstr("repetitions spell"))
        << repetition;
  }
  for (const char* repetition : {"~30000", " ~ 1 .. 30000", "~1..+30000", "i~30000", "{ 30000 }", "i{30000}"}) {
    EXPECT_THAT(error_of(std::string("start: \"a\"") + repetition, GrammarKind::lark), HasSubstr("repetitions spell"))
        << repetition;
  }
  EXPECT_THAT(error_of("start: /a/i{30000}", GrammarKind::lark), HasSubstr("repetitions spell"));
  for (const char* grammar :
       {"start: \"a\"~3..9 ~/b/ \"~30000\"", "start: b{3,}\nb: \"c\" { 2, 4 }", "start: a~", "start: {"}) {
    EXPECT_EQ(error_of(grammar, GrammarKind::lark), "none") << grammar;
  }
}

TEST(PatternCheck, LooksIntoSchemasAndGrammarsWithinLark) {
  EXPECT_THAT(error_of(R"(start: "a" %json {"type": "array", "maxItems": 1000000000} "b")", GrammarKind::lark),
              HasSubstr("%json: "));
  EXPECT_THAT(error_of("start: %json {\"pattern\": \"" + times(40, "[^a]?") + "\"}", GrammarKind::lark),
              HasSubstr("too long to compile"));
  EXPECT_THAT(error_of("start: %json " + times(1000, "{\"not\": ") + "1" + std::string(1000, '}'), GrammarKind::lark),
              HasSubstr("nested deeper"));
  EXPECT_THAT(error_of("start: %regex " + times(1000, "{\"a\": ") + "1" + std::string(1000, '}'), GrammarKind::lark),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(error_of("start: " + times(1000, "%lark { start: "), GrammarKind::lark), HasSubstr("brackets are open"));
  for (const char* grammar : {R"(start: %json {"type": "object", "properties": {"a}": {"type": "string"}}} "x")",
                              R"(start: %lark { start: "a" } %regex {"substring_chars": "[[[[{"} )"}) {
    EXPECT_EQ(error_of(grammar, GrammarKind::lark), "none") << grammar;
  }
}

TEST(PatternCheck, ReadsGrammarsInTagsBySyntax) {
  const std::string start = R"({"format": {"type": "grammar", "syntax": "lark", "grammar": "start: /\"/ /)";
  EXPECT_THAT(check_grammar({GrammarKind::structural_tag, start + times(40, "[^a]?") + "/\"}}"}).error().message,
              HasSubstr("too long to compile"));
}

TEST(PatternCheck, IsMadeOfEveryGrammar) {
  const std::string deep = nested(1000);
  for (const GrammarSpec& spec :
       {GrammarSpec{GrammarKind::regex, deep}, GrammarSpec{GrammarKind::ebnf, "root ::= " + deep},
        GrammarSpec{GrammarKind::lark, "start: " + deep},
        GrammarSpec{GrammarKind::json_schema, R"({"type": "string", "pattern": ")" + deep + "\"}"},
        GrammarSpec{GrammarKind::json_schema, R"({"type": "object", "patternProperties": {")" + deep + "\": {}}}"},
        GrammarSpec{GrammarKind::structural_tag, R"({"format": {"type": "regex", "pattern": ")" + deep + "\"}}"}}) {
    const auto checked = check_grammar(spec);
    ASSERT_FALSE(checked) << spec.text.substr(0, 40);
    EXPECT_THAT(checked.error().message, HasSubstr("brackets are open"));
  }
}

}  // namespace
}  // namespace lorikeet::model
