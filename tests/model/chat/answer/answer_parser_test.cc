#include "model/chat/answer/answer_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace lorikeet::model {
namespace {

using nlohmann::json;
using Begin = ReasoningSplitter::Begin;

struct Call {
  std::string name, arguments;
  bool operator==(const Call&) const = default;
};
void PrintTo(const Call& call, std::ostream* out) {
  *out << call.name << "(" << call.arguments << ")";
}

struct Answer {
  std::string text, reasoning;
  std::vector<Call> calls;
  bool operator==(const Answer&) const = default;
};

void add(const AnswerPiece& piece, Answer& answer) {
  answer.text += piece.text;
  answer.reasoning += piece.reasoning;
  for (const ToolCallPiece& call : piece.tool_calls) {
    ASSERT_LE(call.index, static_cast<int32_t>(answer.calls.size()));
    if (call.index == static_cast<int32_t>(answer.calls.size())) {
      ASSERT_TRUE(call.name) << "a call's first piece has its name";
      answer.calls.push_back({*call.name, ""});
    } else {
      ASSERT_FALSE(call.name);
    }
    answer.calls[static_cast<size_t>(call.index)].arguments += call.arguments;
  }
}

// Parses the text whole, byte by byte, and cut at random: all must agree.
Answer parsed(const AnswerParser::Options& options, const std::string& text) {
  std::mt19937 random(3);
  Answer whole;
  for (const size_t most : {text.size() + 1, size_t{1}, size_t{3}, size_t{9}, size_t{20}}) {
    AnswerParser parser(options);
    Answer answer;
    for (size_t at = 0; at < text.size();) {
      const size_t size = most == 1 ? 1 : most > text.size() ? text.size() : 1 + random() % most;
      add(parser.push(std::string_view(text).substr(at, size)), answer);
      at += size;
    }
    add(parser.flush(), answer);
    EXPECT_EQ(parser.calls(), static_cast<int32_t>(answer.calls.size()));
    if (most > text.size()) {
      whole = answer;
    } else {
      EXPECT_TRUE(answer == whole) << "cut into pieces of up to " << most << ": " << answer.text << "|"
                                   << answer.reasoning << "|" << answer.calls.size();
    }
  }
  return whole;
}

Answer with_hermes(const std::string& text) {
  AnswerParser::Options options;
  options.tool_calls = ToolCallForm::hermes;
  return parsed(options, text);
}

Answer with_reasoning(Begin begin, const std::string& text) {
  AnswerParser::Options options;
  options.reasoning = begin;
  return parsed(options, text);
}

TEST(Reasoning, IsSplitOffWhereTheTextOpensIt) {
  EXPECT_EQ(with_reasoning(Begin::may_open, "<think>\nHm. So\n</think>\n\nYes.\n"), (Answer{"Yes.\n", "Hm. So", {}}));
  EXPECT_EQ(with_reasoning(Begin::may_open, "\n<think>a\nb</thin</think>c</think>"),
            (Answer{"c</think>", "a\nb</thin", {}}));
  EXPECT_EQ(with_reasoning(Begin::may_open, "<thin king"), (Answer{"<thin king", "", {}}));
  EXPECT_EQ(with_reasoning(Begin::may_open, "No <think>x</think>"), (Answer{"No <think>x</think>", "", {}}));
  EXPECT_EQ(with_reasoning(Begin::may_open, "<think>never closed\n"), (Answer{"", "never closed\n", {}}));
  EXPECT_EQ(with_reasoning(Begin::may_open, "<thi"), (Answer{"<thi", "", {}}));
}

TEST(Reasoning, IsSplitOffWhereThePromptHasOpenedIt) {
  EXPECT_EQ(with_reasoning(Begin::open, "\nHm.\n</think>\n\nYes."), (Answer{"Yes.", "Hm.", {}}));
  EXPECT_EQ(with_reasoning(Begin::open, "<think>\nHm.</think>Yes."), (Answer{"Yes.", "Hm.", {}}));
  EXPECT_EQ(with_reasoning(Begin::open, "</think>Yes."), (Answer{"Yes.", "", {}}));
  EXPECT_EQ(with_reasoning(Begin::open, "all of it"), (Answer{"", "all of it", {}}));
  EXPECT_EQ(with_reasoning(Begin::answer, "<think>x</think>y"), (Answer{"<think>x</think>y", "", {}}));
}

TEST(Reasoning, IsKnownToHaveBeenOpenedByThePromptsLastWords) {
  EXPECT_EQ(opened_thought("<|im_start|>assistant\n"), OpenedThought::none);
  EXPECT_EQ(opened_thought("<|im_start|>assistant\n<think>\n"), OpenedThought::open);
  EXPECT_EQ(opened_thought("<|im_start|>assistant\n<think>\n\n</think>\n\n"), OpenedThought::closed);
  EXPECT_EQ(opened_thought("<think>a</think> <think>b"), OpenedThought::open);
}

TEST(HermesCalls, AreReadBetweenTheirTags) {
  EXPECT_EQ(
      with_hermes("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"\", \"b\": [1, {}]}}\n</tool_call>"),
      (Answer{"", "", {{"f", R"({"a": "}\"", "b": [1, {}]})"}}}));
  const std::string two =
      "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n"
      "<tool_call>{\"arguments\": {\"x\": 1}, \"name\": \"g\"}</tool_call>\n";
  EXPECT_EQ(with_hermes(two), (Answer{"Let me see.", "", {{"f", "{}"}, {"g", R"({"x": 1})"}}}));
  EXPECT_EQ(with_hermes("<tool_call>{\"name\": \"f\"}</tool_call>"), (Answer{"", "", {{"f", "{}"}}}));
  EXPECT_EQ(with_hermes("<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>"),
            (Answer{"", "", {{"f", R"({"a": 1})"}}}));
  EXPECT_EQ(with_hermes("<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call> and more"),
            (Answer{" and more", "", {{"f", "null"}}}));
}

TEST(HermesCalls, HaveTheirFirstArguments) {
  EXPECT_EQ(with_hermes("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"arguments\": {}}</tool_call>"),
            (Answer{"", "", {{"f", R"({"a": 1})"}}}));
}

TEST(HermesCalls, AreGivenAsFarAsTheyAreKnown) {
  AnswerParser::Options options;
  options.tool_calls = ToolCallForm::hermes;
  AnswerParser parser(options);
  EXPECT_TRUE(parser.push("<tool_call>\n{\"name\": \"get").empty());
  const AnswerPiece named = parser.push("\", \"arguments\": {\"city\": \"Par");
  ASSERT_EQ(named.tool_calls.size(), 1u);
  EXPECT_EQ(named.tool_calls[0], (ToolCallPiece{0, "get", "{\"city\": \"Par"}));
  EXPECT_EQ(parser.push("is\"}").tool_calls.at(0), (ToolCallPiece{0, std::nullopt, "is\"}"}));
  EXPECT_TRUE(parser.push("}\n</tool_call>").empty());
  EXPECT_EQ(parser.calls(), 1);
}

TEST(HermesCalls, AreTextWhereTheyAreNone) {
  for (const char* text :
       {"<tool_call>not JSON</tool_call>", "<tool_call>[1]</tool_call> b", "<tool_call>{\"a\": 1}</tool_call>",
        "<tool_call>", "a <tool_ca", "just text", "a\n<tool_call>{\"name\": 5}</tool_call>", " \n "}) {
    const Answer answer = with_hermes(text);
    EXPECT_TRUE(answer.calls.empty()) << text;
    std::string said = text;
    if (said.starts_with("a\n<")) said.erase(1, 1);  // white space in front of what might have been a call
    EXPECT_EQ(answer.text, said);
  }
  EXPECT_EQ(with_hermes("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1").calls,
            (std::vector<Call>{{"f", "{\"a\": 1"}}))
      << "cut off by max_tokens";
}

TEST(HermesCalls, BehindTheFirstAreDroppedWhereOneIsAllowed) {
  AnswerParser::Options options;
  options.tool_calls = ToolCallForm::hermes;
  options.parallel_tool_calls = false;
  EXPECT_EQ(parsed(options, "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"g\"}</tool_call>"),
            (Answer{"", "", {{"f", "{}"}}}));
}

TEST(HermesCalls, StandBehindReasoning) {
  AnswerParser::Options options;
  options.reasoning = Begin::open;
  options.tool_calls = ToolCallForm::hermes;
  EXPECT_EQ(parsed(options, "a <tool_call>b\n</think>\n\n<tool_call>{\"name\": \"f\"}</tool_call>"),
            (Answer{"", "a <tool_call>b", {{"f", "{}"}}}));
}

// Whatever a model writes, arguments are a stretch of it and nothing is given twice.
TEST(HermesCalls, AgreeForRandomTextHoweverItIsCut) {
  const std::vector<std::string> pieces = {"<tool_call>",
                                           "</tool_call>",
                                           "{",
                                           "}",
                                           "\"name\"",
                                           ":",
                                           "\"f\"",
                                           "\"arguments\"",
                                           ",",
                                           "[",
                                           "]",
                                           "\\",
                                           "\"",
                                           " ",
                                           "\n",
                                           "<think>",
                                           "</think>",
                                           "1",
                                           "<"};
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 25; ++i) text += pieces[random() % pieces.size()];
    AnswerParser::Options options;
    options.reasoning = static_cast<Begin>(random() % 3);
    options.tool_calls = static_cast<ToolCallForm>(random() % 3);
    SCOPED_TRACE(text);
    const Answer answer = parsed(options, text);
    EXPECT_LE(answer.text.size() + answer.reasoning.size(), text.size());
  }
}

TEST(Qwen3CoderCalls, AreTypedByTheSchemasOfTheirTools) {
  AnswerParser::Options options;
  options.tool_calls = ToolCallForm::qwen3_coder;
  options.tools = {R"({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
      "text": {"type": "string"}, "count": {"type": "integer"}, "on": {"type": "boolean"}, "list": {"type": "array"},
      "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "either": {"type": ["string", "integer"]}}}}})"};
  const std::string call =
      "I call.\n<tool_call>\n<function=f>\n<parameter=text>\n{\"a\": 1}\n  two\n</parameter>\n<parameter=count>\n5\n"
      "</parameter>\n<parameter=on>\nTrue\n</parameter>\n<parameter=list>\n[1, "
      "\"x\"]\n</parameter>\n<parameter=maybe>\nnull\n"
      "</parameter>\n<parameter=either>\n7\n</parameter>\n<parameter=other>\n8\n</parameter>\n</function>\n</"
      "tool_call>";
  const Answer answer = parsed(options, call);
  EXPECT_EQ(answer.text, "I call.");
  ASSERT_EQ(answer.calls.size(), 1u);
  EXPECT_EQ(answer.calls[0].name, "f");
  EXPECT_EQ(json::parse(answer.calls[0].arguments),
            json::parse(R"({"text": "{\"a\": 1}\n  two", "count": 5, "on": true, "list": [1, "x"], "maybe": null,
                            "either": "7", "other": "8"})"));
  EXPECT_EQ(parsed(options, "<tool_call><function=g></function></tool_call>").calls, (std::vector<Call>{{"g", "{}"}}));
  EXPECT_EQ(parsed(options, "<tool_call><function=f><parameter=count>many</parameter><parameter=on>").calls,
            (std::vector<Call>{{"f", R"({"count": "many"})"}}));
}

// Whoever writes a document again goes down into each of its brackets; a model may write as many as it has tokens.
TEST(Qwen3CoderCalls, HandValuesThatAreNestedDeeplyOnAsStrings) {
  AnswerParser::Options options;
  options.tool_calls = ToolCallForm::qwen3_coder;
  options.tools = {
      R"({"function": {"name": "f", "parameters": {"type": "object", "properties": {"list": {"type": "array"}}}}})"};
  for (const size_t depth : {size_t{64}, size_t{65}, size_t{500'000}}) {
    const std::string value = std::string(depth, '[') + std::string(depth, ']');
    AnswerParser parser(options);
    Answer answer;
    add(parser.push("<tool_call><function=f><parameter=list>" + value + "</parameter></function></tool_call>"), answer);
    add(parser.flush(), answer);
    ASSERT_EQ(answer.calls.size(), 1u);
    EXPECT_EQ(answer.calls[0].arguments, depth > 64 ? R"({"list": ")" + value + "\"}" : R"({"list": )" + value + "}");
  }
}

}  // namespace
}  // namespace lorikeet::model
