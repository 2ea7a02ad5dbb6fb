#include "actors/head/chat_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace lorikeet::actors {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

const std::filesystem::path kModel =
    std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";

class ChatPromptTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { tokenizer_ = model::Tokenizer::load(kModel).value(); }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  static comm::GenerateRequest asking(const std::string& text) {
    comm::GenerateRequest request;
    request.messages.emplace().push_back({"user", text});
    return request;
  }

  Result<std::string> prompt(const comm::GenerateRequest& request) {
    auto chat = model::ChatTemplate::load(kModel, *tokenizer_, chosen_).value();
    if (options_.special_tokens_in_text) chat.trust_special_tokens();
    auto made = chat_prompt(chat, *tokenizer_, request, options_);
    if (!made) return tl::unexpected(made.error());
    opening_ = made->opening;
    ids_ = made->ids;
    return tokenizer_->decode(made->ids, false);
  }

  static inline std::shared_ptr<const model::Tokenizer> tokenizer_;
  ChatOptions options_;
  std::string chosen_ = "qwen3", opening_;
  std::vector<int32_t> ids_;
};

TEST_F(ChatPromptTest, ShowsToolsCallsAndTheirResults) {
  auto request = asking("How warm?");
  request.tools = {{R"({"type": "function", "function": {"name": "f", "b": 1, "a": 2}})"}};
  comm::Message calls{"assistant", ""};
  calls.tool_calls = {{"c1", "f", R"({"z": 1, "y": "é"})"}};
  request.messages->push_back(calls);
  request.messages->push_back({"tool", "5 degrees"});
  const std::string text = prompt(request).value();
  EXPECT_THAT(text, HasSubstr(R"({"type": "function", "function": {"name": "f", "b": 1, "a": 2}})"));
  EXPECT_THAT(text, HasSubstr(R"({"name": "f", "arguments": {"z": 1, "y": "é"}})"));
  EXPECT_THAT(text, HasSubstr("<tool_response>\n5 degrees\n</tool_response>"));
  chosen_ = "qwen2";
  EXPECT_THAT(prompt(request).error().message, HasSubstr("this model's chat template has none"));
}

TEST_F(ChatPromptTest, TellsTheTemplateWhatRequestAndServerSay) {
  EXPECT_THAT(prompt(asking("a")).value(), EndsWith("<|im_start|>assistant\n"));
  auto quick = asking("a");
  quick.chat_template_kwargs = comm::JsonText{R"({"enable_thinking": false})"};
  EXPECT_THAT(prompt(quick).value(), EndsWith("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
  EXPECT_THAT(opening_, EndsWith("<think>\n\n</think>\n\n"));
  options_.default_template_kwargs = R"({"enable_thinking": false})";
  EXPECT_THAT(prompt(asking("a")).value(), EndsWith("</think>\n\n"));
  quick.chat_template_kwargs = comm::JsonText{R"({"enable_thinking": true})"};
  EXPECT_THAT(prompt(quick).value(), EndsWith("<|im_start|>assistant\n")) << "the request's word is the last";
  quick.chat_template_kwargs = comm::JsonText{R"([1])"};
  EXPECT_THAT(prompt(quick).error().message, HasSubstr("chat_template_kwargs: not a JSON object"));
  options_.default_template_kwargs.clear();
  auto effortless = asking("a");
  effortless.reasoning_effort = "none";
  EXPECT_THAT(prompt(effortless).value(), EndsWith("</think>\n\n"));
}

TEST_F(ChatPromptTest, GoesOnWithTheLastMessage) {
  auto request = asking("a");
  request.messages->push_back({"assistant", "The answer"});
  request.continue_final_message = true;
  EXPECT_THAT(prompt(request).value(), EndsWith("The answer"));
  EXPECT_EQ(opening_, "The answer");
  request.add_generation_prompt = true;
  EXPECT_THAT(prompt(request).error().message, HasSubstr("exclude each other"));
  request.continue_final_message = false;
  request.add_generation_prompt = false;
  EXPECT_THAT(prompt(request).value(), EndsWith("<|im_end|>\n"));
}

TEST_F(ChatPromptTest, TakesTemplatesOfClientsOnlyWhereTheyAreTrusted) {
  auto request = asking("a");
  request.chat_template = "{{ messages[0].content }}{{ word }}";
  request.chat_template_kwargs = comm::JsonText{R"({"word": "!"})"};
  EXPECT_THAT(prompt(request).error().message, HasSubstr("--trust-request-chat-template"));
  options_.trust_request_template = true;
  EXPECT_EQ(prompt(request).value(), "a!");
  request.chat_template = "{% if %}";
  EXPECT_THAT(prompt(request).error().message, HasSubstr("chat_template: "));
}

TEST_F(ChatPromptTest, ShowsPartsAsTheTemplateWantsThem) {
  auto request = asking("one\ntwo");
  request.messages->front().more = {
      R"({"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]})"};
  EXPECT_THAT(prompt(request).value(), HasSubstr("user\none\ntwo<|im_end|>"));
  options_.trust_request_template = true;
  request.chat_template =
      "{% for m in messages %}{% for part in m['content'] %}[{{ part.text }}]{% endfor %}{% endfor %}";
  EXPECT_EQ(prompt(request).value(), "[one][two]") << "its source says so";
  auto plain = asking("three");
  plain.chat_template = request.chat_template;
  EXPECT_EQ(prompt(plain).value(), "[three]");
  plain.chat_template = request.chat_template = "{{ messages[0].content }}";
  EXPECT_EQ(prompt(request).value(), "one\ntwo");
  options_.content_format = "openai";
  EXPECT_EQ(prompt(plain).value(), "[{'type': 'text', 'text': 'three'}]");
  options_.content_format = "string";
  EXPECT_EQ(prompt(request).value(), "one\ntwo");
}

TEST_F(ChatPromptTest, TakesSpecialTokensOfClientsForTextUnlessToldOtherwise) {
  const int32_t end = tokenizer_->id_of("<|im_end|>");
  const auto count = [&] { return std::count(ids_.begin(), ids_.end(), end); };
  const std::string guarded = prompt(asking("<|im_end|>")).value();
  EXPECT_EQ(count(), 1);
  options_.special_tokens_in_text = true;
  EXPECT_EQ(prompt(asking("<|im_end|>")).value(), guarded);
  EXPECT_EQ(count(), 2);
  EXPECT_EQ(ids_, tokenizer_->encode(guarded, true));
}

}  // namespace
}  // namespace lorikeet::actors
