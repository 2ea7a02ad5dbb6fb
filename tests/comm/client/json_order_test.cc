#include "comm/client/json_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "comm/client/request_json.h"
#include "comm/codec/codec.h"
#include "comm/codec/json_codec.h"

namespace lorikeet::comm {
namespace {

using ::testing::HasSubstr;

GenerateRequest parsed(const std::string& text) {
  const auto line = parse_request(text);
  EXPECT_TRUE(line) << line.error().message;
  return line ? line->request : GenerateRequest{};
}

TEST(JsonOrder, KeepsToolsAsTheyWereWritten) {
  const GenerateRequest request = parsed(R"({"id": "7", "messages": [{"role": "user", "content": "x"}],
      "tools": [ {"type":"function", "function": {"name": "f\"]},", "description": "z", "a": 1.50}} , {"b":[{}],"a":2}],
      "documents": [], "chat_template_kwargs": {"z": 1, "y": {"x": [1, "]"]}}})");
  ASSERT_EQ(request.tools.size(), 2u);
  EXPECT_EQ(request.tools[0].text,
            R"({"type":"function", "function": {"name": "f\"]},", "description": "z", "a": 1.50}})");
  EXPECT_EQ(request.tools[1].text, R"({"b":[{}],"a":2})");
  EXPECT_EQ(request.chat_template_kwargs->text, R"({"z": 1, "y": {"x": [1, "]"]}})");
}

TEST(JsonOrder, KeepsWhatMessagesHaveBesideTheirText) {
  const GenerateRequest request = parsed(R"({"id": "7", "messages": [
      {"role": "user", "content": [{"type": "text", "text": "one"}, {"text": "two", "type": "text"}], "name": "Ann"},
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1}"}},
        {"type": "function", "function": {"arguments": {"z": 1, "a": 2}, "name": "g"}}]},
      {"tool_call_id": "c1", "role": "tool", "content": "5"}]})");
  const std::vector<Message>& messages = *request.messages;
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].content, "one\ntwo");
  EXPECT_EQ(messages[0].more.text,
            R"({"content":[{"type": "text", "text": "one"}, {"text": "two", "type": "text"}],"name":"Ann"})");
  EXPECT_EQ(messages[1].reasoning_content, "hm");
  ASSERT_EQ(messages[1].tool_calls.size(), 2u);
  EXPECT_EQ(messages[1].tool_calls[0], (ToolCall{"c1", "f", R"({"b": 1})"}));
  EXPECT_EQ(messages[1].tool_calls[1], (ToolCall{"", "g", R"({"z": 1, "a": 2})"}));
  EXPECT_EQ(messages[1].more.text, "");
  EXPECT_EQ(messages[2].more.text, R"({"tool_call_id":"c1"})");
}

TEST(JsonOrder, SurvivesTheWayThroughEitherEncoding) {
  const GenerateRequest request = parsed(R"({"id": "7", "tools": [{"b": 1, "a": {"d": 1, "c": 2}}], "messages": [
      {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}], "name": "x"}]})");
  const auto bytes = decode<GenerateRequest>(encode(request));
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_EQ(bytes->tools, request.tools);
  EXPECT_EQ(bytes->messages->at(0).tool_calls, request.messages->at(0).tool_calls);
  const auto text = from_json<GenerateRequest>(to_json(request));
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(text->tools[0].json_form(), request.tools[0].json_form());
  EXPECT_EQ(text->messages->at(0).tool_calls, request.messages->at(0).tool_calls);
  EXPECT_EQ(text->messages->at(0).more, request.messages->at(0).more);
}

// What was read is what a second reading of the kept text gives: no bracket, quote or escape leads it astray.
TEST(JsonOrder, KeepsValuesWhateverStandsInThem) {
  std::mt19937 random(5);
  const std::vector<std::string> pieces = {"\"", "\\", "{", "}", "[", "]", ",", ":", "a", "\n", "\u00e9", " "};
  for (int round = 0; round < 2000; ++round) {
    std::string key, text;
    for (int i = 0; i < 6; ++i) {
      key += pieces[random() % pieces.size()];
      text += pieces[random() % pieces.size()];
    }
    const nlohmann::json tool = {{key, {text, nullptr, 1e-7, -3, true, {{"k", text}, {"l", nlohmann::json::array()}}}},
                                 {"z" + text, nlohmann::json::object()}};
    const nlohmann::json body = {{"id", "7"}, {"prompt", text}, {"tools", {tool, tool, nlohmann::json::object()}}};
    const GenerateRequest request = parsed(body.dump(round % 3 - 1));
    ASSERT_EQ(request.tools.size(), 3u) << body;
    EXPECT_EQ(nlohmann::json::parse(request.tools[1].text), tool);
    EXPECT_EQ(request.tools[2].text, "{}");
  }
}

TEST(ToolCallDeltas, ArePutTogetherInTheirOrder) {
  std::vector<ToolCall> calls;
  add_tool_calls({{0, "a", "f", "{\"x\""}, {0, std::nullopt, std::nullopt, ": 1}"}}, calls);
  add_tool_calls({{1, "b", "g", std::nullopt}, {5, "no", "such", "call"}, {-1, "no", "such", "call"}}, calls);
  EXPECT_THAT(calls, ::testing::ElementsAre(ToolCall{"a", "f", "{\"x\": 1}"}, ToolCall{"b", "g", ""}));
}

TEST(ChatMessage, TakesPartsOfTextUnderAllTheirNames) {
  const auto line = parse_request(R"({"id": "7", "messages": [{"role": "user", "content": ["a",
      {"type": "text", "text": "b"}, {"type": "input_text", "text": "c"}, {"type": "output_text", "text": "d"},
      {"type": "refusal", "refusal": "e"}]}]})");
  ASSERT_TRUE(line) << line.error().message;
  EXPECT_EQ(line->request.messages->at(0).content, "a\nb\nc\nd\ne");
  for (const char* part : {R"({"type": "refusal", "text": "x"})", R"({"type": "input_text"})", R"({"text": "x"})", "5",
                           R"({"type": "input_image", "text": "x"})", "null"}) {
    const auto refused =
        parse_request(R"({"id": "7", "messages": [{"role": "user", "content": [)" + std::string(part) + "]}]}");
    ASSERT_FALSE(refused) << part;
    EXPECT_THAT(refused.error().message, HasSubstr("parts of the type text")) << part;
  }
}

TEST(ChatMessage, SaysWhatIsWrongAndWhere) {
  const auto error_of = [](const std::string& message) {
    const auto line = parse_request(R"({"id": "7", "messages": [)" + message + "]}");
    return line ? std::string("none") : line.error().message;
  };
  EXPECT_EQ(error_of("5"), "messages[0] must be an object, not a number");
  EXPECT_EQ(error_of(R"({"content": "x"})"), "messages[0].role is missing");
  EXPECT_EQ(error_of(R"({"role": 1, "content": "x"})"), "messages[0].role must be a string, not a number");
  EXPECT_EQ(error_of(R"({"role": "user", "content": 5})"),
            "messages[0].content must be a string or a list of parts of the type text, not a number");
  EXPECT_THAT(error_of(R"({"role": "user", "content": [{"type": "image_url"}]})"), HasSubstr("parts of the type text"));
  EXPECT_EQ(error_of(R"({"role": "assistant", "tool_calls": [{}]})"),
            "messages[0].tool_calls[0] must be an object with a function");
  EXPECT_EQ(error_of(R"({"role": "assistant", "tool_calls": [{"function": {}}]})"),
            "messages[0].tool_calls[0].function.name must be a string");
  EXPECT_EQ(error_of(R"({"role": "assistant", "reasoning_content": []})"),
            "messages[0].reasoning_content must be a string, not a list");
}

}  // namespace
}  // namespace lorikeet::comm
