#include "comm/openai/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace lorikeet::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

OpenAiRequest completion(std::string_view body) {
  auto request = parse_completion(body);
  EXPECT_TRUE(request) << request.error().message;
  return request ? *request : OpenAiRequest{};
}

OpenAiRequest chat(std::string_view body) {
  auto request = parse_chat(body);
  EXPECT_TRUE(request) << request.error().message;
  return request ? *request : OpenAiRequest{};
}

TEST(OpenAiRequest, OfACompletionHasOpenAisDefaults) {
  const OpenAiRequest request = completion(R"({"prompt": "The whale"})");
  EXPECT_EQ(request.kind, OpenAiRequest::Kind::completion);
  EXPECT_EQ(request.model, std::nullopt);
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.stream || request.include_usage || request.logprobs);
  ASSERT_EQ(request.prompts.size(), 1u);
  const GenerateRequest choice = request.choice(0);
  EXPECT_EQ(choice.id, "0");
  EXPECT_THAT(choice.prompt, Optional(std::string("The whale")));
  EXPECT_THAT(choice.max_tokens, Optional(16));
  EXPECT_EQ(choice.temperature, std::nullopt);
  EXPECT_EQ(choice.logprobs, std::nullopt);
  EXPECT_TRUE(choice.skip_special_tokens);
}

TEST(OpenAiRequest, TakesEveryFieldOfACompletion) {
  const OpenAiRequest request = completion(R"({
      "model": "moby", "prompt": ["a", "b"], "n": 2, "stream": true,
      "stream_options": {"include_usage": true, "continuous_usage_stats": true}, "max_tokens": 7, "temperature": 0.5,
      "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "presence_penalty": 0.25,
      "frequency_penalty": -0.5, "seed": 11, "stop": "\n", "stop_token_ids": [5, 6], "logprobs": 3, "ignore_eos": true,
      "include_stop_str_in_output": true, "skip_special_tokens": false, "return_token_ids": true, "user": "somebody",
      "best_of": 2, "suffix": null, "logit_bias": {"15": -100, "7": 2.5}, "echo": false, "min_tokens": 2.0,
      "bad_words": ["whale"], "allowed_token_ids": [1, 2], "truncate_prompt_tokens": -1, "add_special_tokens": false,
      "cache_salt": "tenant", "timeout": 1.5})");
  EXPECT_TRUE(completion(R"({"prompt": "a", "echo": true})").echo);
  EXPECT_TRUE(completion(R"({"prompt": "a", "return_tokens_as_token_ids": true})").return_tokens_as_token_ids);
  EXPECT_FALSE(request.return_tokens_as_token_ids);
  EXPECT_FALSE(request.echo);
  EXPECT_THAT(request.model, Optional(std::string("moby")));
  EXPECT_TRUE(request.stream && request.include_usage && request.continuous_usage_stats && request.return_token_ids);
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.top_logprobs, 3);
  ASSERT_EQ(request.choices(), 4u);
  const GenerateRequest third = request.choice(2);
  EXPECT_EQ(third.id, "2");
  EXPECT_THAT(third.prompt, Optional(std::string("b")));
  EXPECT_THAT(third.max_tokens, Optional(7));
  EXPECT_THAT(third.temperature, Optional(0.5));
  EXPECT_THAT(third.top_p, Optional(0.9));
  EXPECT_THAT(third.top_k, Optional(40));
  EXPECT_THAT(third.min_p, Optional(0.05));
  EXPECT_THAT(third.repetition_penalty, Optional(1.1));
  EXPECT_THAT(third.presence_penalty, Optional(0.25));
  EXPECT_THAT(third.frequency_penalty, Optional(-0.5));
  EXPECT_THAT(third.stop, ElementsAre("\n"));
  EXPECT_THAT(third.stop_token_ids, ElementsAre(5, 6));
  EXPECT_THAT(third.logprobs, Optional(3));
  EXPECT_TRUE(third.ignore_eos && third.include_stop_str_in_output && !third.skip_special_tokens);
  EXPECT_THAT(third.logit_bias, ::testing::UnorderedElementsAre(std::pair(15, -100.0), std::pair(7, 2.5)));
  EXPECT_THAT(third.min_tokens, Optional(2));
  EXPECT_THAT(third.bad_words, ElementsAre("whale"));
  EXPECT_THAT(third.allowed_token_ids, Optional(ElementsAre(1, 2)));
  EXPECT_THAT(third.truncate_prompt_tokens, Optional(-1));
  EXPECT_THAT(third.add_special_tokens, Optional(false));
  EXPECT_THAT(third.cache_salt, Optional(std::string("tenant")));
  EXPECT_THAT(third.timeout, Optional(1.5));
}

TEST(OpenAiRequest, AsksForThePromptsLogprobsWhereTheyAreShown) {
  const OpenAiRequest echo = completion(R"({"prompt": "a", "echo": true, "logprobs": 3})");
  EXPECT_THAT(echo.choice(0).prompt_top_logprobs, Optional(3));
  EXPECT_FALSE(echo.prompt_logprobs);
  const OpenAiRequest both = completion(R"({"prompt": "a", "echo": true, "logprobs": 1, "prompt_logprobs": 4})");
  EXPECT_THAT(both.choice(0).prompt_top_logprobs, Optional(4));
  EXPECT_TRUE(both.prompt_logprobs && both.shows_prompts());
  EXPECT_EQ(completion(R"({"prompt": "a", "logprobs": 3})").choice(0).prompt_top_logprobs, std::nullopt);
  EXPECT_FALSE(both.choice(0).early_prompt_logprobs);
  for (const char* stream : {R"({"prompt": "a", "echo": true, "logprobs": 0, "stream": true})",
                             R"({"prompt": "a", "prompt_logprobs": 1, "stream": true})"}) {
    EXPECT_TRUE(completion(stream).choice(0).early_prompt_logprobs) << stream;
  }
  EXPECT_FALSE(completion(R"({"prompt": "a", "echo": true, "stream": true})").choice(0).early_prompt_logprobs);
}

TEST(OpenAiRequest, PassesOverFieldsThatNobodyKnows) {
  const OpenAiRequest request = completion(R"({"prompt": "a", "temprature": 1, "x_new": {"y": []}})");
  EXPECT_THAT(request.unknown_fields, ElementsAre("\"temprature\"", "\"x_new\""));
  EXPECT_TRUE(completion(R"({"prompt": "a", "user": "u"})").unknown_fields.empty());
}

TEST(OpenAiRequest, CountsTheSeedOnForEachChoiceOfAPrompt) {
  const OpenAiRequest request = completion(R"({"prompt": ["a", "b"], "n": 3, "seed": 100})");
  std::vector<uint64_t> seeds;
  for (size_t i = 0; i < request.choices(); ++i) seeds.push_back(request.choice(i).seed.value());
  EXPECT_THAT(seeds, ElementsAre(100, 101, 102, 100, 101, 102));
}

TEST(OpenAiRequest, TakesPromptsInEveryForm) {
  EXPECT_THAT(completion(R"({"prompt": [1, 2, 3.0]})").choice(0).prompt_token_ids, Optional(ElementsAre(1, 2, 3)));
  const OpenAiRequest lists = completion(R"({"prompt": [[1, 2], [3]]})");
  ASSERT_EQ(lists.choices(), 2u);
  EXPECT_THAT(lists.choice(0).prompt_token_ids, Optional(ElementsAre(1, 2)));
  EXPECT_THAT(lists.choice(1).prompt_token_ids, Optional(ElementsAre(3)));
  EXPECT_EQ(completion(R"({"prompt": ["x"]})").choices(), 1u);
}

TEST(OpenAiRequest, OfAChatHasMessagesInEveryForm) {
  const OpenAiRequest request = chat(R"({"model": "m", "messages": [
      {"role": "developer", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "x"},
      {"role": "assistant", "content": null, "tool_calls": []}], "max_tokens": 5, "max_completion_tokens": 9,
      "logprobs": true, "top_logprobs": 2, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}})");
  const GenerateRequest choice = request.choice(0);
  ASSERT_TRUE(choice.messages);
  ASSERT_EQ(choice.messages->size(), 3u);
  EXPECT_EQ((*choice.messages)[0].role, "system");
  EXPECT_EQ((*choice.messages)[1].content, "one\ntwo");
  EXPECT_EQ((*choice.messages)[2].content, "");
  EXPECT_THAT(choice.max_tokens, Optional(9));
  EXPECT_THAT(choice.logprobs, Optional(2));
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(chat(R"({"messages": [{"role": "user", "content": "x"}]})").choice(0).max_tokens, std::nullopt);
}

TEST(OpenAiRequest, RefusesWhatIsWrongByItsName) {
  struct Case {
    bool chat;
    const char* body;
    const char* param;
    const char* sentence;
  };
  const Case cases[] = {
      {false, "{", "", "not JSON"},
      {false, "[]", "", "must be an object, not a list"},
      {false, R"({"prompt": "a", "prompt": "b"})", "", "appears twice"},
      {false, "{}", "prompt", "prompt is missing"},
      {false, R"({"prompt": 3})", "prompt", "must be a string, a list of token ids"},
      {false, R"({"prompt": []})", "prompt", "must be a string, a list of token ids"},
      {false, R"({"prompt": ["a", 1]})", "prompt", "must be a string, a list of token ids"},
      {false, R"({"prompt": [1, 99999999999]})", "prompt", "must be a string, a list of token ids"},
      {false, R"({"prompt": "a", "max_tokens": -1})", "max_tokens", "max_tokens is -1, not in 0 .. 2147483647"},
      {false, R"({"prompt": "a", "max_tokens": 1.5})", "max_tokens", "must be an integer, not 1.5"},
      {false, R"({"prompt": "a", "max_tokens": 1e30})", "max_tokens", "max_tokens is 1e+30, not in 0 .. 2147483647"},
      {false, R"({"prompt": "a", "max_tokens": 1000000000000000000000000000000})", "max_tokens",
       "max_tokens is 1e+30, not in 0 .. 2147483647"},
      {false, R"({"prompt": "a", "seed": 18446744073709551616})", "seed",
       "seed is 1.8446744073709552e+19, not in -9223372036854775808 .. 9223372036854775807"},
      {false, R"({"prompt": "a", "seed": 1e17})", "seed", "must be an integer, not 1e+17"},
      {false, R"({"prompt": "a", "max_tokens": "5"})", "max_tokens", "must be an integer, not a string"},
      {false, R"({"prompt": "a", "temperature": "hot"})", "temperature", "must be a number, not a string"},
      {false, R"({"prompt": "a", "n": 129})", "n", "n is 129, not in 1 .. 128"},
      {false, R"({"prompt": "a", "n": 18446744073709551615})", "n", "n is 18446744073709551615, not in 1 .. 128"},
      {false, R"({"prompt": "a", "stream": 1})", "stream", "must be true or false"},
      {false, R"({"prompt": "a", "return_tokens_as_token_ids": "yes"})", "return_tokens_as_token_ids",
       "must be true or false"},
      {true, R"({"messages": [{"role": "user", "content": "a"}], "return_tokens_as_token_ids": [1]})",
       "return_tokens_as_token_ids", "must be true or false"},
      {false, R"({"prompt": "a", "stream_options": true})", "stream_options", "must be an object"},
      {false, R"({"prompt": "a", "stop": [1]})", "stop", "element 0 is a number"},
      {false, R"({"prompt": "a", "stop_token_ids": ["x"]})", "stop_token_ids", "element 0"},
      {false, R"({"prompt": "a", "logprobs": 21})", "logprobs", "not in 0 .. 20"},
      {false, R"({"prompt": "a", "prompt_logprobs": -1})", "prompt_logprobs", "not in 0 .. 20"},
      {false, R"({"prompt": "a", "suffix": "b"})", "suffix", "suffix is not served here"},
      {false, R"({"prompt": "a", "best_of": 3})", "best_of", "best_of is 3, but n is 1"},
      {false, R"({"prompt": "a", "logit_bias": {"x": 5}})", "logit_bias", "object of token ids and numbers; \"x\""},
      {false, R"({"prompt": "a", "logit_bias": {"1": "5"}})", "logit_bias", "object of token ids and numbers; \"1\""},
      {false, R"({"prompt": "a", "logit_bias": [1]})", "logit_bias", "not a list"},
      {false, R"({"prompt": "a", "min_tokens": -1})", "min_tokens", "min_tokens is -1"},
      {false, R"({"prompt": "a", "allowed_token_ids": "all"})", "allowed_token_ids", "must be a list of integers"},
      {false, R"({"prompt": "a", "truncate_prompt_tokens": -2})", "truncate_prompt_tokens", "is -2, not in -1"},
      {false, R"({"prompt": "a", "cache_salt": 5})", "cache_salt", "must be a string"},
      {false, R"({"prompt": "a", "timeout": "1s"})", "timeout", "must be a number"},
      {false, R"({"prompt": "a", "response_format": "json"})", "response_format",
       "response_format must be an object, not a string"},
      {false, R"({"prompt": "a", "guided_json": {}, "guided_regex": "a"})", "guided_regex", "exclude each other"},
      {false, R"({"prompt": "a", "guided_json": {}, "structured_outputs": {}})", "structured_outputs",
       "exclude each other"},
      {true, R"({"messages": [{"role": "user", "content": "a"}], "tool_choice": 1})", "tool_choice",
       "tool_choice must be a string or an object, not a number"},
      {true, "{}", "messages", "messages is missing"},
      {true, R"({"messages": []})", "messages", "at least one message"},
      {true, R"({"messages": ["a"]})", "messages", "messages[0] must be an object with a role"},
      {true, R"({"messages": [{"role": "user", "content": 1}]})", "messages", "messages[0].content must be a string"},
      {true, R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "messages",
       "parts of the type text"},
      {true, R"({"messages": [{"role": "assistant", "tool_calls": [{}]}]})", "messages",
       "messages[0].tool_calls[0] must be an object with a function"},
      {true, R"({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2})", "top_logprobs",
       "needs logprobs"},
      {true, R"({"messages": [{"role": "user", "content": "a"}], "tools": [{}]})", "tools",
       "tools[0].function must be an object with a name"},
      {true, R"({"messages": [{"role": "user", "content": "a"}], "documents": [1]})", "documents",
       "documents[0] must be an object, not a number"},
      {true, R"({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": []})", "chat_template_kwargs",
       "must be an object, not a list"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.body);
    const auto request = c.chat ? parse_chat(c.body) : parse_completion(c.body);
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().status, 400);
    EXPECT_EQ(request.error().param.value_or(""), c.param);
    EXPECT_THAT(request.error().message, HasSubstr(c.sentence));
  }
}

TEST(OpenAiRequest, TakesTextForTheOnlyModality) {
  const auto with_modalities = [](const std::string& list) {
    const auto request = parse_chat(R"({"messages": [{"role": "user", "content": "a"}], "modalities": )" + list + "}");
    return request ? std::string() : request.error().message;
  };
  for (const char* list : {R"(["text"])", "[]", "null"}) EXPECT_EQ(with_modalities(list), "") << list;
  for (const char* list : {R"(["text", "audio"])", R"(["audio"])", R"("text")"}) {
    EXPECT_THAT(with_modalities(list), HasSubstr("modalities is not served here")) << list;
  }
}

TEST(OpenAiRequest, HandsOnWhatTheChatTemplateIsTold) {
  const GenerateRequest choice =
      chat(R"({"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}],
      "tools": [{"type": "function", "function": {"name": "f", "description": "d"}}], "documents": [{"title": "t", "a": 1}],
      "chat_template": "{{ x }}", "chat_template_kwargs": {"x": 1, "enable_thinking": false},
      "add_generation_prompt": false, "continue_final_message": true})")
          .choice(0);
  EXPECT_EQ(choice.tools.at(0).text, R"({"type": "function", "function": {"name": "f", "description": "d"}})");
  EXPECT_EQ(choice.documents.at(0).text, R"({"title": "t", "a": 1})");
  EXPECT_EQ(choice.chat_template, "{{ x }}");
  EXPECT_EQ(choice.chat_template_kwargs->text, R"({"x": 1, "enable_thinking": false})");
  EXPECT_EQ(choice.add_generation_prompt, false);
  EXPECT_TRUE(choice.continue_final_message);
  EXPECT_EQ(choice.messages->at(0).role, "system");
  EXPECT_EQ(choice.messages->at(0).more.text, R"({"content":[{"type": "text", "text": "a"}]})");
}

TEST(OpenAiRequest, HandsOnWhatTheAnswerMustBeLike) {
  const GenerateRequest asked = chat(R"({"messages": [{"role": "user", "content": "a"}], "parallel_tool_calls": false,
      "tools": [{"type": "function", "function": {"name": "f"}}], "reasoning_effort": "low", "thinking_token_budget": 7,
      "tool_choice": {"type": "function", "function": {"name": "f"}}, "include_reasoning": false,
      "response_format": {"type": "json_schema", "json_schema": {"schema": {"z": 1, "a": 2}}}})")
                                    .choice(0);
  EXPECT_EQ(nlohmann::json::parse(asked.tool_choice->text)["function"]["name"], "f");
  EXPECT_EQ(asked.parallel_tool_calls, false);
  EXPECT_EQ(asked.reasoning_effort, "low");
  EXPECT_EQ(asked.thinking_budget, 7);
  EXPECT_FALSE(asked.include_reasoning);
  EXPECT_EQ(asked.response_format->text, R"({"type": "json_schema", "json_schema": {"schema": {"z": 1, "a": 2}}})");
  const GenerateRequest plain =
      chat(R"({"messages": [{"role": "user", "content": "a"}], "tool_choice": "auto"})").choice(0);
  EXPECT_EQ(plain.tool_choice->text, "\"auto\"");
  EXPECT_EQ(plain.parallel_tool_calls, std::nullopt);
  const auto guided = parse_completion(R"({"prompt": "a", "guided_json": {"z": 1, "a": [2]}})");
  ASSERT_TRUE(guided) << guided.error().message;
  EXPECT_EQ(guided->choice(0).structured_outputs->text, R"({"json": {"z": 1, "a": [2]}})");
  const auto choice = parse_completion(R"({"prompt": "a", "guided_choice": ["x", "y"]})");
  EXPECT_EQ(choice->choice(0).structured_outputs->text, R"({"choice": ["x", "y"]})");
}

TEST(OpenAiRequest, BoundsWhatManyChoicesOfALongPromptTake) {
  const std::string prompt(1 << 20, 'x');
  EXPECT_TRUE(parse_completion(R"({"n": 64, "prompt": ")" + prompt + "\"}"));
  const auto refused = parse_completion(R"({"n": 65, "prompt": ")" + prompt + "\"}");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("take more than 67108864 bytes"));
}

}  // namespace
}  // namespace lorikeet::comm
