#include "model/chat/conversation_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "model/chat/chat_variables.h"

namespace lorikeet::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ConversationJson, ReadsMessagesCallsAndOptions) {
  const auto conversation = parse_conversation(R"({
    "messages": [{"role": "user", "content": "Hi", "name": "Ann"},
                 {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}},
                    {"name": "g", "arguments": {"z": 1, "y": 2}}]},
                 {"role": "tool", "content": [{"type": "text", "text": "x"}]}],
    "tools": [{"z": 1, "a": 2}], "documents": [{"title": "t"}], "enable_thinking": false,
    "add_generation_prompt": false, "chat_template_kwargs": {"x": 1}})");
  ASSERT_TRUE(conversation) << conversation.error().message;
  const auto& messages = conversation->messages;
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0].content, "Hi");
  EXPECT_EQ(messages[0].more, R"({"name":"Ann"})");
  EXPECT_EQ(messages[1].content, "");
  EXPECT_EQ(messages[1].reasoning_content, "hm");
  ASSERT_EQ(messages[1].tool_calls.size(), 2u);
  EXPECT_EQ(messages[1].tool_calls[0].id, "c1");
  EXPECT_EQ(messages[1].tool_calls[0].arguments, R"({"b": 1, "a": 2})");
  EXPECT_EQ(messages[1].tool_calls[1].arguments, R"({"z":1,"y":2})") << "keys keep their order";
  EXPECT_EQ(messages[2].more, R"({"content":[{"type":"text","text":"x"}]})");
  EXPECT_THAT(conversation->options.tools, ElementsAre(R"({"z":1,"a":2})"));
  EXPECT_FALSE(conversation->options.enable_thinking);
  EXPECT_FALSE(conversation->options.add_generation_prompt);
  EXPECT_EQ(conversation->options.variables, R"({"x":1})");
}

TEST(ConversationJson, TellsTemplatesOfThinkingWhereItIsAskedFor) {
  const auto told = [](const std::string& fields) {
    const auto conversation = parse_conversation(R"({"messages": [{"role": "user", "content": "x"}])" + fields + "}");
    const auto variables = chat_variables(conversation->messages, conversation->options);
    const auto found = variables->find("enable_thinking");
    return found == variables->end() ? std::string("nothing") : *found->second.get<bool>() ? "yes" : "no";
  };
  EXPECT_EQ(told(""), "nothing");
  EXPECT_EQ(told(R"(, "enable_thinking": null)"), "nothing");
  EXPECT_EQ(told(R"(, "enable_thinking": true)"), "yes");
  EXPECT_EQ(told(R"(, "enable_thinking": false)"), "no");
  EXPECT_EQ(told(R"(, "enable_thinking": true, "chat_template_kwargs": {"enable_thinking": false})"), "no");
}

TEST(ConversationJson, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "not valid JSON"},
      {"[]", "not a JSON object"},
      {"{}", "messages is not a list"},
      {R"({"messages": [1]})", "messages[0]: not an object with a role"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0]: content is neither"},
      {R"({"messages": [{"role": "assistant", "tool_calls": [{}]}]})", "messages[0]: tool_calls[0]: there is no name"},
      {R"({"messages": [], "tools": {}})", "tools is not a list"},
      {R"({"messages": [], "enable_thinking": 1})", "enable_thinking is not a boolean"},
      {R"({"messages": [], "temperature": 1})", "no field \"temperature\""},
      {R"({"messages": [], "messages": []})", "occurs twice"},
  };
  for (const auto& [json, sentence] : cases) {
    const auto conversation = parse_conversation(json);
    ASSERT_FALSE(conversation) << json;
    EXPECT_THAT(conversation.error().message, HasSubstr(sentence)) << json;
  }
}

}  // namespace
}  // namespace lorikeet::model
