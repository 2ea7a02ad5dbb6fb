#include "comm/openai/tokenize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorikeet::comm {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

TEST(Tokenize, TakesAPromptOrMessages) {
  const auto prompt = parse_tokenize(R"({"model": "m", "prompt": "a b", "return_token_strs": true})");
  ASSERT_TRUE(prompt) << prompt.error().message;
  EXPECT_THAT(prompt->text.prompt, Optional(std::string("a b")));
  EXPECT_THAT(prompt->model, Optional(std::string("m")));
  EXPECT_TRUE(prompt->with_texts);
  const auto chat = parse_tokenize(R"({"messages": [{"role": "user", "content": "a"}]})");
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(chat->text.messages->at(0).content, "a");
  EXPECT_FALSE(chat->with_texts);
  EXPECT_THAT(parse_tokenize("{}").error().message, HasSubstr("prompt or messages is needed"));
  EXPECT_TRUE(parse_tokenize(R"({"prompt": "a", "x": 1})")) << "fields that nobody knows are passed over";
}

TEST(Tokenize, AnswersWithIdsAndTheirTexts) {
  const auto bytes = [](int32_t id) { return id == 7 ? std::string_view("seven") : std::string_view("\xC3"); };
  EXPECT_EQ(json::parse(tokenize_answer({7, 8}, 2048, true, bytes)),
            json::parse(R"({"count": 2, "max_model_len": 2048, "tokens": [7, 8], "token_strs": ["seven", "�"]})"));
  EXPECT_EQ(json::parse(tokenize_answer({}, 1, false, bytes)),
            json::parse(R"({"count": 0, "max_model_len": 1, "tokens": [], "token_strs": null})"));
}

TEST(Detokenize, TakesTokensAndAnswersWithTheirText) {
  const auto request = parse_detokenize(R"({"model": "m", "tokens": [1, 2]})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_THAT(request->tokens, ElementsAre(1, 2));
  EXPECT_THAT(request->model, Optional(std::string("m")));
  EXPECT_THAT(parse_detokenize(R"({"tokens": [1], "model": 2})").error().message, HasSubstr("model must be a string"));
  EXPECT_THAT(parse_detokenize("{}").error().message, HasSubstr("tokens is missing"));
  EXPECT_THAT(parse_detokenize(R"({"tokens": "x"})").error().message, HasSubstr("must be a list of integers"));
  EXPECT_EQ(json::parse(detokenize_answer("a")), json::parse(R"({"prompt": "a"})"));
}

}  // namespace
}  // namespace lorikeet::comm
