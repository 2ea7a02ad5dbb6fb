#include "actors/head/answer_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/head/grammar_request.h"
#include "model/grammar/answer_constraint.h"

namespace lorikeet::actors {
namespace {

using model::GrammarKind;
using ::testing::HasSubstr;
using Begin = model::ReasoningSplitter::Begin;
using Thinking = model::AnswerConstraint::Thinking;

class AnyGrammar final : public model::CompiledGrammar {
 public:
  std::unique_ptr<model::GrammarState> begin(const std::vector<int32_t>&) const override { return nullptr; }
  size_t bytes() const override { return 1; }
};

// Takes everything but what has the word "wrong".
class AnyCompiler final : public model::GrammarCompiler {
 public:
  Result<std::shared_ptr<const model::CompiledGrammar>> compile(const model::GrammarSpec& spec) override {
    if (spec.text.find("wrong") != std::string::npos) return fail("it is wrong");
    return std::make_shared<const AnyGrammar>();
  }
};

class AnswerRulesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ =
        model::Tokenizer::load(std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4")
            .value();
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  AnswerRulesTest() {
    options_.enable_auto_tool_choice = true;
    options_.tool_call_parser = "hermes";
    request_.messages.emplace().push_back({"user", "x"});
  }

  void give_tools() {
    for (const char* name : {"f", "g"}) {
      request_.tools.push_back({R"({"type": "function", "function": {"name": ")" + std::string(name) +
                                R"(", "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}})"});
    }
  }

  Result<PreparedAnswer> made(const std::string& opening = "<|im_start|>assistant\n") {
    return answer_rules(request_, options_, opening, tokenizer_.get(), &grammars_);
  }
  std::string error() {
    const auto result = made();
    return result ? "none" : result.error().message;
  }

  static inline std::shared_ptr<const model::Tokenizer> tokenizer_;
  model::GrammarSource grammars_{
      []() -> Result<std::shared_ptr<model::GrammarCompiler>> { return std::make_shared<AnyCompiler>(); }};
  ChatOptions options_;
  comm::GenerateRequest request_;
};

TEST_F(AnswerRulesTest, AskNothingOfAPlainRequest) {
  const auto plain = made().value();
  EXPECT_FALSE(plain.rules.any());
  EXPECT_FALSE(plain.reading);
}

TEST_F(AnswerRulesTest, ReadCallsWhereTheServerLooksForThem) {
  give_tools();
  EXPECT_EQ(made()->reading->parser.tool_calls, model::ToolCallForm::hermes);
  EXPECT_TRUE(made()->reading->calls_end_it);
  request_.tool_choice = comm::JsonText{"\"none\""};
  EXPECT_FALSE(made()->reading);
  request_.tool_choice = comm::JsonText{"\"auto\""};
  request_.parallel_tool_calls = false;
  EXPECT_FALSE(made()->reading->parser.parallel_tool_calls);
  options_.enable_auto_tool_choice = false;
  EXPECT_THAT(error(), HasSubstr("needs a server with --enable-auto-tool-choice"));
  request_.tools.clear();
  EXPECT_FALSE(made()->reading);
}

TEST_F(AnswerRulesTest, HoldAnAnswerToACallWhereOneIsRequired) {
  give_tools();
  request_.tool_choice = comm::JsonText{"\"required\""};
  options_.enable_auto_tool_choice = false;
  const auto required = made().value();
  EXPECT_EQ(required.rules.grammar_kind, static_cast<int32_t>(GrammarKind::structural_tag));
  auto format = nlohmann::json::parse(required.rules.grammar)["format"];
  EXPECT_EQ(format["tags"].size(), 2u);
  EXPECT_EQ(format["stop_after_first"], false);
  EXPECT_EQ(format["tags"][1]["begin"], "<tool_call>\n{\"name\": \"g\", \"arguments\": ");
  EXPECT_THAT(required.rules.grammar, HasSubstr(R"("properties":{"z":{},"a":{}})")) << "in the order that was written";
  EXPECT_EQ(required.reading->parser.tool_calls, model::ToolCallForm::hermes);

  request_.tool_choice = comm::JsonText{R"({"type": "function", "function": {"name": "g"}})"};
  options_.tool_call_parser = "qwen3_coder";
  const auto named = made().value();
  format = nlohmann::json::parse(named.rules.grammar)["format"];
  EXPECT_EQ(format["tags"].size(), 1u);
  EXPECT_EQ(format["stop_after_first"], true);
  EXPECT_EQ(format["tags"][0]["begin"], "<tool_call>\n<function=g>\n");
  EXPECT_FALSE(named.reading->calls_end_it);

  request_.response_format = comm::JsonText{R"({"type": "json_object"})"};
  EXPECT_THAT(error(), HasSubstr("excludes response_format"));
}

TEST_F(AnswerRulesTest, SayWhatIsWrongWithAChoice) {
  request_.tool_choice = comm::JsonText{"\"required\""};
  EXPECT_THAT(error(), HasSubstr("there are no tools to choose from"));
  give_tools();
  request_.tool_choice = comm::JsonText{R"({"type": "function", "function": {"name": "h"}})"};
  EXPECT_THAT(error(), HasSubstr("no tool is named \"h\""));
  request_.tool_choice = comm::JsonText{"\"maybe\""};
  EXPECT_THAT(error(), HasSubstr("tool_choice must be"));
  request_.tools[0].text = R"({"function": {"name": "f", "parameters": {"not": {}}}})";
  request_.tool_choice = comm::JsonText{"\"required\""};
  EXPECT_EQ(error(), "tools: the keyword \"not\" is not supported");
}

TEST_F(AnswerRulesTest, ReadReasoningAsThePromptAndTheParserHaveIt) {
  const auto begin = [this](const char* parser, const char* opening) {
    options_.reasoning_parser = parser;
    const auto answer = made(opening).value();
    return answer.reading ? answer.reading->parser.reasoning : Begin::answer;
  };
  EXPECT_EQ(begin("", "<think>\n"), Begin::answer);
  EXPECT_EQ(begin("qwen3", "assistant\n"), Begin::may_open);
  EXPECT_EQ(begin("qwen3", "assistant\n<think>\n"), Begin::open);
  EXPECT_EQ(begin("qwen3", "assistant\n<think>\n\n</think>\n\n"), Begin::answer);
  EXPECT_EQ(begin("deepseek_r1", "assistant\n"), Begin::open);
  EXPECT_EQ(begin("deepseek_r1", "assistant\n<think></think>"), Begin::answer);
}

TEST_F(AnswerRulesTest, BoundReasoningByBudgetOrEffort) {
  request_.thinking_budget = 5;
  EXPECT_THAT(error(), HasSubstr("needs a server with --reasoning-parser"));
  options_.reasoning_parser = "qwen3";
  const auto rules = made("<think>\n").value().rules;
  EXPECT_EQ(rules.thinking_budget, 5);
  EXPECT_EQ(rules.thinking, static_cast<int32_t>(Thinking::open));
  EXPECT_EQ(rules.closing_tag, tokenizer_->encode("</think>", false));
  EXPECT_FALSE(made("<think></think>").value().rules.any()) << "there is nothing to bound";
  request_.reasoning_effort = "low";
  EXPECT_EQ(made("<think>").value().rules.thinking_budget, 5) << "the number is the closer word";
  request_.thinking_budget.reset();
  EXPECT_EQ(made("<think>").value().rules.thinking_budget, 2048);
  request_.reasoning_effort = "none";
  EXPECT_EQ(made("<think>").value().rules.thinking_budget, 0);
  for (const char* any_number : {"high", "xhigh", "max"}) {
    request_.reasoning_effort = any_number;
    EXPECT_FALSE(made("<think>").value().rules.any()) << any_number;
  }
  request_.reasoning_effort = "hard";
  EXPECT_THAT(error(), HasSubstr("reasoning_effort must be none, minimal"));
  request_.reasoning_effort.reset();
  request_.thinking_budget = -1;
  EXPECT_THAT(error(), HasSubstr("below 0"));
}

TEST_F(AnswerRulesTest, PutAGrammarBehindReasoning) {
  options_.reasoning_parser = "qwen3";
  request_.response_format = comm::JsonText{R"({"type": "json_object"})"};
  const auto rules = made("<think>").value().rules;
  EXPECT_EQ(rules.grammar_kind, static_cast<int32_t>(GrammarKind::json_schema));
  EXPECT_EQ(rules.thinking, static_cast<int32_t>(Thinking::open));
  EXPECT_EQ(made("").value().rules.thinking, static_cast<int32_t>(Thinking::may));
  EXPECT_EQ(made("</think>").value().rules.thinking, static_cast<int32_t>(Thinking::none));
}

TEST_F(AnswerRulesTest, NameTheFieldOfAGrammarThatIsWrong) {
  request_.structured_outputs = comm::JsonText{R"({"regex": "wrong"})"};
  EXPECT_EQ(error(), "structured_outputs: it is wrong");
  request_.structured_outputs.reset();
  request_.response_format =
      comm::JsonText{R"({"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "wrong"}}})"};
  EXPECT_EQ(error(), "response_format: it is wrong");
}

TEST(GrammarRequest, ReadsWhatOpenAiAndVllmCallIt) {
  using Spec = model::GrammarSpec;
  const auto format = [](const std::string& text) {
    comm::GenerateRequest request;
    request.response_format = comm::JsonText{text};
    return grammar_of(request);
  };
  const auto outputs = [](const std::string& text) {
    comm::GenerateRequest request;
    request.structured_outputs = comm::JsonText{text};
    return grammar_of(request);
  };
  EXPECT_EQ(format(R"({"type": "text"})").value(), std::nullopt);
  EXPECT_EQ(format(R"({"type": "json_object"})").value(),
            (Spec{GrammarKind::json_schema, R"({"type": "object", "additionalProperties": true})"}));
  EXPECT_EQ(format(R"({"type": "json_schema", "json_schema": {"name": "n", "schema": {"z": 1, "a": 2}}})").value(),
            (Spec{GrammarKind::json_schema, R"({"z":1,"a":2})"}));
  EXPECT_EQ(format(R"({"type": "structural_tag", "format": {}})").value()->kind, GrammarKind::structural_tag);
  EXPECT_EQ(outputs(R"({"json": {"z": 1}})").value(), (Spec{GrammarKind::json_schema, R"({"z":1})"}));
  EXPECT_EQ(outputs(R"({"json": "{\"z\": 1}", "regex": null})").value(),
            (Spec{GrammarKind::json_schema, R"({"z": 1})"}));
  EXPECT_EQ(outputs(R"({"regex": "a+"})").value(), (Spec{GrammarKind::regex, "a+"}));
  EXPECT_EQ(outputs(R"({"choice": ["a", "b"]})").value(), (Spec{GrammarKind::ebnf, "root ::= \"a\" | \"b\""}));
  EXPECT_EQ(outputs(R"({"grammar": "root ::= \"a\""})").value()->kind, GrammarKind::ebnf);
  EXPECT_EQ(outputs(R"({"grammar": "start: \"a\""})").value()->kind, GrammarKind::lark);
  EXPECT_EQ(outputs(R"({"structural_tag": "{\"format\": {}}"})").value()->kind, GrammarKind::structural_tag);
  EXPECT_EQ(outputs("{}").value(), std::nullopt);

  const std::pair<Result<std::optional<Spec>>, const char*> refused[] = {
      {format("[]"), "response_format must be an object"},
      {format(R"({"type": "xml"})"), "response_format.type must be"},
      {format(R"({"type": "json_schema"})"), "response_format.json_schema.schema must be an object"},
      {format(R"({"type": "json_schema", "json_schema": {"schema": {"not": {}}}})"),
       "response_format: the keyword \"not\" is not supported"},
      {outputs(R"({"json": {}, "regex": "a"})"), "where one is expected"},
      {outputs(R"({"backend": "x"})"), "structured_outputs.backend is not served here"},
      {outputs(R"({"choice": []})"), "structured_outputs.choice is empty"},
      {outputs(R"({"choice": [1]})"), "list of up to 1024 strings"},
      {outputs(R"({"regex": 1})"), "structured_outputs.regex must be a string"},
      {outputs(R"({"regex": ")" + std::string(70'000, 'a') + "\"}"), "70000 bytes, more than 65536"},
      {outputs(R"({"regex": ")" + std::string(200'000, 'a') + "\"}"), "more than 131072"},
      {outputs(R"({"json": )" + std::string(60'000, '[') + std::string(60'000, ']') + "}"), "nested deeper than 64"},
  };
  for (const auto& [result, sentence] : refused) {
    ASSERT_FALSE(result) << sentence;
    EXPECT_THAT(result.error().message, HasSubstr(sentence));
  }
}

}  // namespace
}  // namespace lorikeet::actors
