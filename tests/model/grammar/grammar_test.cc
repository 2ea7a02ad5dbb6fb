// Needs a build with grammars: skips, saying so, where there are none.
#include "model/grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>

#include "kernels/sampling/token_constraint.h"
#include "model/grammar/grammar_source.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int32_t kVocab = 2048, kEnd = 2047;

class GrammarTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!has_grammars()) return;
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    tokenizer_ = Tokenizer::load(dir).value();
    compiler_ = make_grammar_compiler(*tokenizer_, kVocab).value();
  }
  static void TearDownTestSuite() {
    compiler_.reset();
    tokenizer_.reset();
  }
  void SetUp() override {
    if (!has_grammars()) GTEST_SKIP() << "this build has no grammars";
  }

  static std::vector<int32_t> allowed(GrammarState& state) {
    std::vector<uint32_t> mask(static_cast<size_t>(kernels::mask_words(kVocab)));
    state.fill(mask);
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < kVocab; ++id) {
      if ((mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) ids.push_back(id);
    }
    return ids;
  }

  // An answer drawn from what is allowed, the end as soon as one draw in four finds it; empty: it never ended.
  std::optional<std::string> drawn(const CompiledGrammar& grammar, uint32_t seed) {
    std::mt19937 random(seed);
    const auto state = grammar.begin({kEnd});
    std::vector<int32_t> ids;
    for (int i = 0; i < 3000; ++i) {
      const std::vector<int32_t> choices = allowed(*state);
      if (choices.empty()) return std::nullopt;
      // Few choices first: what closes a value is rare among thousands of letters.
      int32_t id = choices[random() % choices.size()];
      if (choices.back() == kEnd && random() % 4 == 0) id = kEnd;
      if (random() % 2 == 0) {
        for (const int32_t one : choices) {
          if (tokenizer_->bytes_of(one) == "\"" || tokenizer_->bytes_of(one) == "}" || tokenizer_->bytes_of(one) == "]")
            id = one;
        }
      }
      EXPECT_TRUE(state->accept(id)) << id;
      if (id == kEnd) {
        EXPECT_THAT(allowed(*state), ::testing::ElementsAre(kEnd)) << "behind its end there is nothing else";
        return tokenizer_->decode(ids, false);
      }
      ids.push_back(id);
    }
    return std::nullopt;
  }

  static std::string error_of(const GrammarSpec& spec) {
    const auto compiled = compiler_->compile(spec);
    return compiled ? "none" : compiled.error().message;
  }

  static inline std::shared_ptr<const Tokenizer> tokenizer_;
  static inline std::shared_ptr<GrammarCompiler> compiler_;
};

TEST_F(GrammarTest, LeadsToAnswersOfASchema) {
  const auto grammar =
      compiler_->compile({GrammarKind::json_schema, R"({"type": "object", "additionalProperties": false,
      "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b", 3]}, "maxItems": 4},
                     "size": {"type": "integer", "minimum": 3, "maximum": 40}}, "required": ["name", "tags", "size"]})"});
  ASSERT_TRUE(grammar) << grammar.error().message;
  int ended = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const auto answer = drawn(**grammar, seed);
    if (!answer) continue;
    ++ended;
    const json value = json::parse(*answer, nullptr, false);
    ASSERT_TRUE(value.is_object()) << *answer;
    EXPECT_EQ(value.size(), 3u);
    EXPECT_TRUE(value["name"].is_string());
    EXPECT_GE(value["size"], 3);
    EXPECT_LE(value["size"], 40);
    EXPECT_LE(value["tags"].size(), 4u);
  }
  EXPECT_GE(ended, 15);
}

TEST_F(GrammarTest, LeadsToAnswersOfExpressionsGrammarsAndChoices) {
  const auto regex = compiler_->compile({GrammarKind::regex, "[a-c]{2,4}-[0-9]+"});
  const auto ebnf = compiler_->compile({GrammarKind::ebnf, "root ::= \"x\" item+\nitem ::= \"yes\" | \"no\"\n"});
  const auto choice = compiler_->compile(choice_grammar({"north", "south \"pole\"\n", "é"}));
  ASSERT_TRUE(regex && ebnf && choice);
  for (uint32_t seed = 0; seed < 10; ++seed) {
    if (const auto answer = drawn(**regex, seed)) {
      EXPECT_TRUE(std::regex_match(*answer, std::regex("[a-c]{2,4}-[0-9]+"))) << *answer;
    }
    if (const auto answer = drawn(**ebnf, seed)) {
      EXPECT_TRUE(std::regex_match(*answer, std::regex("x(yes|no)+"))) << *answer;
    }
    EXPECT_THAT(drawn(**choice, seed).value(), AnyOf("north", "south \"pole\"\n", "é"));
  }
}

TEST_F(GrammarTest, EndsAtNoTokenOutsideOfTheVocabulary) {
  const auto state = (*compiler_->compile(choice_grammar({"a"})))->begin({kEnd, kVocab, 151645, 1 << 30, -1});
  ASSERT_TRUE(state->accept(tokenizer_->encode("a", false)[0]));
  EXPECT_THAT(allowed(*state), ::testing::ElementsAre(kEnd));
  EXPECT_TRUE(state->accept(kEnd));
}

TEST_F(GrammarTest, RefusesWhatItDoesNotAllowAndStaysWhereItIs) {
  const auto state = (*compiler_->compile(choice_grammar({"ab"})))->begin({kEnd});
  const std::vector<int32_t> before = allowed(*state);
  EXPECT_FALSE(state->accept(kEnd));
  EXPECT_FALSE(state->accept(tokenizer_->encode("x", false)[0]));
  EXPECT_EQ(allowed(*state), before);
}

TEST_F(GrammarTest, NeverAllowsSpecialTokensOrThoseThatTheTokenizerLacks) {
  const auto state = (*compiler_->compile({GrammarKind::regex, "(.|\n)*"}))->begin({kEnd});
  const std::vector<int32_t> ids = allowed(*state);
  EXPECT_GT(ids.size(), 1500u);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2046), 0);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2045), 0);
  EXPECT_EQ(ids.back(), kEnd);
}

TEST_F(GrammarTest, KeepsControlCharactersOutOfJsonAlone) {
  const auto has_control = [this](const GrammarSpec& spec, const char* begin) {
    const auto state = compiler_->compile(spec).value()->begin({kEnd});
    for (const int32_t id : tokenizer_->encode(begin, false)) EXPECT_TRUE(state->accept(id));
    const std::vector<int32_t> ids = allowed(*state);
    return std::any_of(ids.begin(), ids.end(), [](int32_t id) {
      const std::string_view text = tokenizer_->bytes_of(id);
      return std::any_of(text.begin(), text.end(), [](char c) { return c == '\t' || c == '\f' || c == '\x1d'; });
    });
  };
  EXPECT_FALSE(has_control({GrammarKind::json_schema, R"({"type": "string", "maxLength": 9})"}, "\"a"));
  EXPECT_FALSE(has_control({GrammarKind::json_schema, R"({"type": "string"})"}, "\"a"));
  EXPECT_TRUE(has_control({GrammarKind::regex, "[^x]*"}, "a"));
}

TEST_F(GrammarTest, SaysWhatIsWrong) {
  EXPECT_THAT(error_of({GrammarKind::ebnf, "root ::= other"}), HasSubstr("other"));
  EXPECT_NE(error_of({GrammarKind::regex, "a(b"}), "none");
  EXPECT_THAT(error_of({GrammarKind::json_schema, R"({"type": "nothing"})"}), HasSubstr("nothing"));
  EXPECT_NE(error_of({GrammarKind::json_schema, R"({"type": "integer", "minimum": 5, "maximum": 2})"}), "none");
  EXPECT_NE(error_of({GrammarKind::structural_tag, R"({"type": "structural_tag"})"}), "none");
  EXPECT_NE(error_of({GrammarKind::lark, "start: other"}), "none");
  EXPECT_EQ(error_of({GrammarKind::lark, "start: \"a\" | \"b\""}), "none");
}

// What leads nowhere, or round in a circle, ends: as a grammar or with a sentence.
TEST_F(GrammarTest, EndsWithWhatRefersToItself) {
  for (const GrammarSpec& spec :
       {GrammarSpec{GrammarKind::ebnf, "root ::= root"},
        GrammarSpec{GrammarKind::ebnf, "root ::= a\na ::= root | \"x\"\n"},
        GrammarSpec{GrammarKind::json_schema, R"({"$ref": "#"})"},
        GrammarSpec{GrammarKind::json_schema,
                    R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})"},
        GrammarSpec{GrammarKind::json_schema, R"({"$ref": "#/$defs/missing"})"},
        GrammarSpec{GrammarKind::json_schema,
                    R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})"}}) {
    SCOPED_TRACE(spec.text);
    const auto compiled = compiler_->compile(spec);
    if (!compiled) {
      EXPECT_NE(compiled.error().message, "");
      continue;
    }
    std::vector<uint32_t> mask(static_cast<size_t>(kernels::mask_words(kVocab)));
    (*compiled)->begin({kEnd})->fill(mask);
  }
}

TEST_F(GrammarTest, KeepsTheLatestWithinABudget) {
  const GrammarSpec first = choice_grammar({"choice 0"});
  const size_t bytes = compiler_->compile(first).value()->bytes();
  const auto compiler = make_grammar_compiler(*tokenizer_, kVocab, 5 * bytes).value();
  const auto kept = compiler->compile(first).value();
  EXPECT_EQ(compiler->compile(first).value(), kept);
  for (int i = 1; i < 10; ++i) ASSERT_TRUE(compiler->compile(choice_grammar({"choice " + std::to_string(i)})));
  EXPECT_NE(compiler->compile(first).value(), kept) << "it has given way to later ones";
  const auto none = make_grammar_compiler(*tokenizer_, kVocab, 1).value();
  EXPECT_NE(none->compile(first).value(), none->compile(first).value()) << "larger than the whole budget";
}

TEST(GrammarSource, MakesItsCompilerOnceAndSaysWhyThereIsNone) {
  int made = 0;
  GrammarSource source([&made]() -> Result<std::shared_ptr<GrammarCompiler>> {
    ++made;
    return fail("there is none");
  });
  EXPECT_EQ(source.compile({GrammarKind::regex, ""}).error().message, "it is empty");
  EXPECT_EQ(made, 0);
  EXPECT_EQ(source.compile({GrammarKind::regex, "a"}).error().message, "there is none");
  EXPECT_EQ(source.compile({GrammarKind::regex, "a"}).error().message, "there is none");
  EXPECT_EQ(made, 1);
}

// XGrammar 0.2.9 followed the first eight until its stack was full.
TEST_F(GrammarTest, RefusesRulesThatAreMadeOfThemselvesAlone) {
  const std::string tag = R"({"type": "structural_tag", "format": {"type": "grammar", "grammar": "root ::= root{2}"}})";
  for (const GrammarSpec& spec :
       {GrammarSpec{GrammarKind::ebnf, "root ::= root{2}"}, GrammarSpec{GrammarKind::ebnf, "root ::= b{2}\nb ::= root"},
        GrammarSpec{GrammarKind::ebnf, "root ::= \"x\" b\nb ::= \"\" b{0,2}"},
        GrammarSpec{GrammarKind::lark, "start: start?"}, GrammarSpec{GrammarKind::lark, "start: [start]"},
        GrammarSpec{GrammarKind::lark, "start: \"x\" b\nb: c\nc: b*"}, GrammarSpec{GrammarKind::lark, "start: start~2"},
        GrammarSpec{GrammarKind::structural_tag, tag}, GrammarSpec{GrammarKind::ebnf, "root ::= root"}}) {
    EXPECT_THAT(error_of(spec), HasSubstr("is made of itself alone")) << spec.text;
  }
  for (const GrammarSpec& spec :
       {GrammarSpec{GrammarKind::ebnf, "root ::= \"a\" | \"(\" root{0,3} \")\""},
        GrammarSpec{GrammarKind::ebnf, "root ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" root \")\""},
        GrammarSpec{GrammarKind::ebnf, "root ::= list\nlist ::= item*\nitem ::= \"x\" list"},
        GrammarSpec{GrammarKind::lark, "start: \"a\" | \"(\" start* \")\""}}) {
    EXPECT_EQ(error_of(spec), "none") << spec.text;
  }
}

}  // namespace
}  // namespace lorikeet::model
