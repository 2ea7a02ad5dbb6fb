#include "comm/openai/openai_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

// "é" cut into its two bytes is tokens 3 and 4.
std::string_view token_bytes(int32_t id) {
  constexpr std::string_view kTokens[] = {"zero", " one", " two", "\xC3", "\xA9"};
  return id >= 0 && id < 5 ? kTokens[id] : std::string_view();
}

OpenAiAnswer answer_to(const OpenAiRequestResult& request, std::vector<OpenAiAnswer::Prompt> prompts = {}) {
  return OpenAiAnswer(request.value(), {"x-1", "m", 1700000000, token_bytes, std::move(prompts)});
}

Done done(const std::string& id, int32_t prompt, int32_t completion, std::string reason = "stop") {
  Done done;
  done.id = id;
  done.finish_reason = std::move(reason);
  done.usage = {prompt, completion, prompt + completion, 1};
  return done;
}

// The events of a stream, in order; [DONE] as a string.
std::vector<json> events(const std::string& text) {
  std::vector<json> list;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = text.find("\n\n", at);
    EXPECT_EQ(text.substr(at, 6), "data: ");
    const std::string data = text.substr(at + 6, end - at - 6);
    list.push_back(data == "[DONE]" ? json(data) : json::parse(data));
    at = end + 2;
  }
  return list;
}

TEST(OpenAiAnswer, NamesAStopIdByItsNumberAndCountsTheLongestChoice) {
  OpenAiAnswer answer = answer_to(parse_completion(R"({"prompt": ["p", "q"], "n": 2})"));
  Done ends[] = {done("0", 3, 2), done("1", 3, 7), done("2", 3, 4), done("3", 3, 1)};
  ends[0].stop_reason = 2045;
  for (const Done& end : ends) answer.finish(end);
  EXPECT_EQ(json::parse(answer.body())["choices"][0]["stop_reason"], 2045);
  EXPECT_TRUE(json::parse(answer.body())["choices"][1]["stop_reason"].is_null());
  EXPECT_EQ(answer.longest_choices(), (std::vector<int32_t>{7, 4}));
}

TEST(OpenAiAnswer, ShowsThePromptsLogprobsInVllmsForm) {
  for (const bool of_chat : {false, true}) {
    OpenAiAnswer answer =
        answer_to(of_chat ? parse_chat(R"({"messages": [{"role": "user", "content": "p"}], "prompt_logprobs": 2})")
                          : parse_completion(R"({"prompt": "p", "prompt_logprobs": 2})"),
                  {{{0, 2, 1}, "zero two one"}});
    Done end = done("0", 3, 1);
    end.prompt_logprobs = {std::nullopt, -3.0F, -0.5F};
    end.prompt_ranks = {0, 7, 1};
    end.prompt_top_logprobs = {{}, {{1, -0.25F}, {0, -1.5F}}, {{1, -0.5F}, {2, -2.0F}}};
    answer.finish(end);
    const json body = json::parse(answer.body());
    const json& shown = of_chat ? body["prompt_logprobs"] : body["choices"][0]["prompt_logprobs"];
    EXPECT_EQ(shown, json::parse(R"([null,
        {"2": {"logprob": -3.0, "rank": 7, "decoded_token": " two"},
         "1": {"logprob": -0.25, "rank": 1, "decoded_token": " one"},
         "0": {"logprob": -1.5, "rank": 2, "decoded_token": "zero"}},
        {"1": {"logprob": -0.5, "rank": 1, "decoded_token": " one"},
         "2": {"logprob": -2.0, "rank": 2, "decoded_token": " two"}}])"));
  }
}

TEST(OpenAiAnswer, PutsTheLogprobsOfAnEchoedPromptBeforeThoseOfTheAnswer) {
  OpenAiAnswer answer =
      answer_to(parse_completion(R"({"prompt": "p", "echo": true, "logprobs": 1})"), {{{0, 2}, "zero two"}});
  answer.add({"0", " one", {1}, {{{1, -0.5F}}}});
  Done end = done("0", 2, 1);
  end.prompt_logprobs = {std::nullopt, -3.0F};
  end.prompt_ranks = {0, 7};
  end.prompt_top_logprobs = {{}, {{1, -0.25F}}};
  answer.finish(end);
  const json choice = json::parse(answer.body())["choices"][0];
  EXPECT_EQ(choice["text"], "zero two one");
  EXPECT_EQ(choice["logprobs"], json::parse(R"({"tokens": ["zero", " two", " one"],
      "token_logprobs": [null, -3.0, -0.5], "text_offset": [0, 4, 8],
      "top_logprobs": [null, {" one": -0.25, " two": -3.0}, {" one": -0.5}]})"));
  EXPECT_FALSE(choice.contains("prompt_logprobs"));
}

TEST(OpenAiAnswer, NamesATokenBesideItsLogprobAlsoWhereNoOthersWereAskedFor) {
  OpenAiAnswer answer =
      answer_to(parse_completion(R"({"prompt": "p", "echo": true, "logprobs": 0})"), {{{0, 2}, "zero two"}});
  answer.add({"0", " one", {1}, {{{1, -0.5F}}}});
  Done end = done("0", 2, 1);
  end.prompt_logprobs = {std::nullopt, -3.0F};
  end.prompt_ranks = {0, 7};
  end.prompt_top_logprobs = {{}, {}};
  answer.finish(end);
  EXPECT_EQ(json::parse(answer.body())["choices"][0]["logprobs"]["top_logprobs"],
            json::parse(R"([null, {" two": -3.0}, {" one": -0.5}])"));
}

// A first piece with what is known of a prompt of two tokens.
Delta first_piece(const std::string& id) {
  Delta delta{id, " one", {1}, {{{1, -0.5F}}}};
  delta.prompt = PromptScores{{std::nullopt, -3.0F}, {0, 7}, {{}, {{1, -0.25F}}}};
  return delta;
}

TEST(OpenAiAnswer, StreamsTheLogprobsOfAnEchoedPromptBeforeThoseOfTheAnswer) {
  OpenAiAnswer answer =
      answer_to(parse_completion(R"({"prompt": "p", "echo": true, "logprobs": 1, "n": 2, "stream": true})"),
                {{{0, 2}, "zero two"}});
  for (const char* id : {"1", "0"}) {
    const auto pieces = events(answer.add(first_piece(id)));
    ASSERT_EQ(pieces.size(), 2u);
    const json& prompt = pieces[0]["choices"][0];
    EXPECT_EQ(std::to_string(prompt["index"].get<int>()), id);
    EXPECT_EQ(prompt["text"], "zero two");
    EXPECT_EQ(prompt["logprobs"], json::parse(R"({"tokens": ["zero", " two"], "token_logprobs": [null, -3.0],
        "top_logprobs": [null, {" one": -0.25, " two": -3.0}], "text_offset": [0, 4]})"));
    EXPECT_EQ(pieces[1]["choices"][0]["logprobs"], json::parse(R"({"tokens": [" one"], "token_logprobs": [-0.5],
        "top_logprobs": [{" one": -0.5}], "text_offset": [8]})"));
    EXPECT_FALSE(prompt.contains("prompt_logprobs"));
  }
}

TEST(OpenAiAnswer, StreamsThePromptsLogprobsWithTheFirstEvent) {
  const json expected = json::parse(R"([null, {"2": {"logprob": -3.0, "rank": 7, "decoded_token": " two"},
      "1": {"logprob": -0.25, "rank": 1, "decoded_token": " one"}}])");
  OpenAiAnswer of_text =
      answer_to(parse_completion(R"({"prompt": "p", "prompt_logprobs": 1, "stream": true})"), {{{0, 2}, "zero two"}});
  auto pieces = events(of_text.add(first_piece("0")));
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0]["choices"][0]["prompt_logprobs"], expected);
  EXPECT_EQ(pieces[0]["choices"][0]["text"], "");
  EXPECT_FALSE(pieces[1]["choices"][0].contains("prompt_logprobs"));

  OpenAiAnswer of_chat = answer_to(parse_chat(R"({"messages": [{"role": "user", "content": "p"}], "prompt_logprobs": 1,
                                                  "n": 2, "stream": true})"),
                                   {{{0, 2}, "zero two"}});
  pieces = events(of_chat.add(first_piece("1")));
  EXPECT_FALSE(pieces[0].contains("prompt_logprobs")) << "once, with the first choice";
  pieces = events(of_chat.add(first_piece("0")));
  EXPECT_EQ(pieces[0]["prompt_logprobs"], expected);
  EXPECT_EQ(pieces[0]["choices"][0]["delta"]["role"], "assistant");
}

Delta calling(std::vector<ToolCallDelta> calls) {
  Delta delta{"0", "", {}, {}};
  delta.tool_calls = std::move(calls);
  return delta;
}

Delta thinking(std::string text) {
  Delta delta{"0", "", {}, {}};
  delta.reasoning = std::move(text);
  return delta;
}

constexpr const char* kChat = R"({"messages": [{"role": "user", "content": "a"}], "stream": %})";

OpenAiAnswer chat_answer(bool stream) {
  std::string body = kChat;
  return answer_to(parse_chat(body.replace(body.find('%'), 1, stream ? "true" : "false")));
}

TEST(OpenAiAnswer, HasReasoningAndCallsInPlacesOfTheirOwn) {
  OpenAiAnswer answer = chat_answer(false);
  answer.add(thinking("Hm"));
  answer.add(thinking(", so"));
  answer.add(calling({{0, "call_1", "f", "{\"a\""}}));
  answer.add(calling({{0, std::nullopt, std::nullopt, ": 1}"}, {1, "call_2", "g", "{}"}}));
  Done end = done("0", 3, 9, "tool_calls");
  end.usage.reasoning_tokens = 4;
  answer.finish(end);
  const json body = json::parse(answer.body());
  const json& message = body["choices"][0]["message"];
  EXPECT_EQ(message["content"], nullptr);
  EXPECT_EQ(message["reasoning_content"], "Hm, so");
  EXPECT_EQ(message["reasoning"], "Hm, so");
  EXPECT_EQ(message["tool_calls"], json::parse(R"([
      {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
      {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}}])"));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(body["usage"]["completion_tokens_details"]["reasoning_tokens"], 4);
}

TEST(OpenAiAnswer, StreamsReasoningAndCallsInPieces) {
  OpenAiAnswer answer = chat_answer(true);
  std::string stream = answer.add(thinking("Hm"));
  stream += answer.add(calling({{0, "call_1", "f", "{"}}));
  stream += answer.add(calling({{0, std::nullopt, std::nullopt, "}"}}));
  stream += answer.finish(done("0", 3, 9, "tool_calls"));
  const std::vector<json> list = events(stream);
  const auto delta = [&list](size_t i) { return list.at(i)["choices"][0]["delta"]; };
  EXPECT_EQ(delta(1), json::parse(R"({"reasoning": "Hm", "reasoning_content": "Hm"})"));
  EXPECT_EQ(delta(2)["tool_calls"], json::parse(R"([{"index": 0, "id": "call_1", "type": "function",
                                                     "function": {"name": "f", "arguments": "{"}}])"));
  EXPECT_EQ(delta(3)["tool_calls"], json::parse(R"([{"index": 0, "function": {"arguments": "}"}}])"));
  EXPECT_EQ(list.at(4)["choices"][0]["finish_reason"], "tool_calls");
}

TEST(OpenAiAnswer, PutsACompletionTogether) {
  OpenAiAnswer answer = answer_to(parse_completion(R"({"prompt": "p", "logprobs": 1})"));
  EXPECT_EQ(answer.add({"0", "zero", {0}, {{{0, -0.5F}, {1, -1.5F}}}}), "");
  EXPECT_EQ(answer.add({"0", " one", {1}, {{{2, -0.25F}, {1, -2.0F}}}}), "");
  EXPECT_FALSE(answer.ended());
  Done end = done("0", 3, 2);
  end.stop_reason = "END";
  EXPECT_EQ(answer.finish(end), "");
  EXPECT_TRUE(answer.ended());
  EXPECT_EQ(json::parse(answer.body()), json::parse(R"({
      "id": "x-1", "object": "text_completion", "created": 1700000000, "model": "m",
      "choices": [{"index": 0, "text": "zero one", "finish_reason": "stop", "stop_reason": "END",
        "logprobs": {"tokens": ["zero", " one"], "token_logprobs": [-0.5, -2.0],
          "top_logprobs": [{"zero": -0.5}, {" two": -0.25, " one": -2.0}], "text_offset": [0, 4]}}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1}}})"));
}

// 3 and 4 are the two bytes of one character.
TEST(OpenAiAnswer, NamesEachOfTheBestOnceThoughJsonHasNoLettersForThem) {
  OpenAiAnswer answer = answer_to(parse_completion(R"({"prompt": "p", "logprobs": 3})"));
  answer.add({"0", "", {3}, {{{3, -0.5F}, {0, -1.0F}, {4, -2.0F}}}});
  answer.add({"0", "", {4}, {{{3, -0.5F}, {0, -1.0F}, {4, -2.0F}}}});
  answer.add({"0", "zero", {0}, {{{3, -0.5F}, {4, -2.0F}, {0, -3.0F}}}});
  answer.finish(done("0", 3, 3));
  const std::string body = answer.body();
  EXPECT_EQ(json::parse(body)["choices"][0]["logprobs"]["top_logprobs"],
            json::parse(R"([{"�": -0.5, "zero": -1.0}, {"zero": -1.0, "�": -2.0}, {"�": -0.5, "zero": -3.0}])"));
  size_t keys = 0;
  for (size_t at = body.find("\"�\":"); at != std::string::npos; at = body.find("\"�\":", at + 1)) ++keys;
  EXPECT_EQ(keys, 3u);
}

TEST(OpenAiAnswer, PutsAChatTogetherWithTheBytesOfItsTokens) {
  OpenAiAnswer answer =
      answer_to(parse_chat(R"({"messages": [{"role": "user", "content": "p"}], "logprobs": true, "top_logprobs": 1})"));
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  answer.add({"0", "", {3}, {{{3, -0.5F}}}});
  answer.add({"0", "\xC3\xA9", {4}, {{{4, kNever}}}});
  answer.finish(done("0", 3, 2, "length"));
  EXPECT_EQ(json::parse(answer.body()), json::parse(R"({
      "id": "x-1", "object": "chat.completion", "created": 1700000000, "model": "m",
      "choices": [{"index": 0, "message": {"role": "assistant", "content": "é", "refusal": null},
        "finish_reason": "length", "stop_reason": null,
        "logprobs": {"refusal": null, "content": [
          {"token": "�", "bytes": [195], "logprob": -0.5,
           "top_logprobs": [{"token": "�", "bytes": [195], "logprob": -0.5}]},
          {"token": "�", "bytes": [169], "logprob": -9999.0,
           "top_logprobs": [{"token": "�", "bytes": [169], "logprob": -9999.0}]}]}}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1}}})"));
}

TEST(OpenAiAnswer, StreamsAChatAsItsTextComes) {
  OpenAiAnswer answer = answer_to(parse_chat(R"({"messages": [{"role": "user", "content": "p"}], "stream": true,
                                                 "stream_options": {"include_usage": true}})"));
  const auto first = events(answer.add({"0", "zero", {0}, {}}));
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0], json::parse(R"({"id": "x-1", "object": "chat.completion.chunk", "created": 1700000000,
      "model": "m", "usage": null, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""},
      "logprobs": null, "finish_reason": null}]})"));
  EXPECT_EQ(first[1]["choices"], json::parse(R"([{"index": 0, "delta": {"content": "zero"}, "logprobs": null,
      "finish_reason": null}])"));
  EXPECT_EQ(answer.add({"0", "", {3}, {}}), "");  // nothing to show yet
  const auto last = events(answer.finish(done("0", 3, 2, "length")));
  ASSERT_EQ(last.size(), 3u);
  EXPECT_EQ(last[0]["choices"], json::parse(R"([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length",
      "stop_reason": null}])"));
  EXPECT_EQ(last[1]["choices"], json::array());
  EXPECT_EQ(last[1]["usage"]["total_tokens"], 5);
  EXPECT_EQ(last[2], "[DONE]");
}

TEST(OpenAiAnswer, StreamsEveryTokensLogprobsOnceAlsoWhereTextCameLater) {
  OpenAiAnswer answer =
      answer_to(parse_completion(R"({"prompt": "p", "stream": true, "logprobs": 0, "return_token_ids": true})"));
  EXPECT_EQ(answer.add({"0", "", {3}, {{{3, -0.5F}}}}), "");
  const auto piece = events(answer.add({"0", "\xC3\xA9", {4}, {{{4, -1.0F}}}}));
  ASSERT_EQ(piece.size(), 1u);
  const json& choice = piece[0]["choices"][0];
  EXPECT_EQ(choice["token_ids"], json({3, 4}));
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json({-0.5, -1.0}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"], json::parse(R"([{"\uFFFD": -0.5}, {"\uFFFD": -1.0}])"));
  answer.add({"0", "", {0}, {{{0, -2.0F}}}});
  const auto last = events(answer.finish(done("0", 3, 3)));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0]["choices"][0]["token_ids"], json(std::vector<int>{0}));
  EXPECT_EQ(last[0]["choices"][0]["logprobs"]["text_offset"], json(std::vector<int>{1}));
}

TEST(OpenAiAnswer, StreamsTokenIdsAsTheyComeWhereThereIsNoTokenizer) {
  const auto without_tokenizer = [](const char* body) {
    return OpenAiAnswer(parse_completion(body).value(), {"x-1", "m", 1700000000, nullptr, {}});
  };
  OpenAiAnswer wanted =
      without_tokenizer(R"({"prompt": [1], "stream": true, "logprobs": 0, "return_token_ids": true})");
  for (const int id : {3, 4}) {
    const auto piece = events(wanted.add({"0", "", {id}, {{{id, -0.5F}}}}));
    ASSERT_EQ(piece.size(), 1u);
    EXPECT_EQ(piece[0]["choices"][0]["token_ids"], json(std::vector<int>{id}));
    EXPECT_EQ(piece[0]["choices"][0]["text"], "");
    EXPECT_EQ(piece[0]["choices"][0]["logprobs"]["tokens"],
              json(std::vector<std::string>{"token_id:" + std::to_string(id)}));
  }
  OpenAiAnswer unasked = without_tokenizer(R"({"prompt": [1], "stream": true})");
  EXPECT_EQ(unasked.add({"0", "", {3}, {}}), "");
}

// Equal texts, and pieces of characters, are told apart by their ids.
TEST(OpenAiAnswer, NamesTokensOfLogprobsByTheirIdsWhereAskedFor) {
  const std::vector<TokenLogprobs> logprobs = {{{4, -0.25F}, {3, -1.5F}}};
  OpenAiAnswer text = answer_to(parse_completion(R"({"prompt": "p", "echo": true, "logprobs": 2, "prompt_logprobs": 0,
                                                     "return_tokens_as_token_ids": true})"),
                                {{{0, 2}, "zero two"}});
  text.add({"0", "?", {3}, logprobs});
  Done end = done("0", 2, 1);
  end.prompt_logprobs = {std::nullopt, -3.0F};
  end.prompt_ranks = {0, 2};
  end.prompt_top_logprobs = {{}, {{1, -0.5F}}};
  text.finish(end);
  const json choice = json::parse(text.body())["choices"][0];
  EXPECT_EQ(choice["text"], "zero two?");
  EXPECT_EQ(choice["logprobs"]["tokens"], json({"token_id:0", "token_id:2", "token_id:3"}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"], json::parse(R"([null, {"token_id:1": -0.5, "token_id:2": -3.0},
                                                                {"token_id:3": -1.5, "token_id:4": -0.25}])"));
  EXPECT_EQ(choice["prompt_logprobs"][1]["2"]["decoded_token"], " two") << "the key is its id";

  OpenAiAnswer chat = answer_to(parse_chat(R"({"messages": [{"role": "user", "content": "p"}], "stream": true,
      "logprobs": true, "top_logprobs": 1, "return_tokens_as_token_ids": true})"));
  const auto pieces = events(chat.add({"0", "?", {3}, logprobs}));
  EXPECT_EQ(pieces.back()["choices"][0]["logprobs"]["content"], json::parse(R"([
      {"token": "token_id:3", "logprob": -1.5, "bytes": [195],
       "top_logprobs": [{"token": "token_id:4", "logprob": -0.25, "bytes": [169]}]}])"));
}

TEST(OpenAiAnswer, ShowsThePromptsWhereAskedFor) {
  const std::vector<OpenAiAnswer::Prompt> prompts = {{{7, 8}, "p: "}, {{9}, "q: "}};
  OpenAiAnswer whole = answer_to(parse_completion(R"({"prompt": ["p: ", "q: "], "n": 2, "echo": true,
                                                      "return_token_ids": true})"),
                                 prompts);
  for (const char* id : {"0", "1", "2", "3"}) {
    whole.add({id, "zero", {0}, {}});
    whole.finish(done(id, 1, 1));
  }
  const json choices = json::parse(whole.body())["choices"];
  EXPECT_EQ(choices[1]["text"], "p: zero");
  EXPECT_EQ(choices[2]["text"], "q: zero");
  EXPECT_EQ(choices[1]["prompt_token_ids"], json({7, 8}));
  EXPECT_EQ(choices[1]["token_ids"], json(std::vector<int>{0}));

  OpenAiAnswer stream = answer_to(parse_completion(R"({"prompt": "p: ", "echo": true, "stream": true})"), {prompts[0]});
  const auto pieces = events(stream.add({"0", "zero", {0}, {}}));
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0]["choices"][0]["text"], "p: ");
  EXPECT_EQ(pieces[1]["choices"][0]["text"], "zero");

  OpenAiAnswer chat = answer_to(parse_chat(R"({"messages": [{"role": "user", "content": "p"}],
                                               "return_token_ids": true})"),
                                {prompts[0]});
  chat.finish(done("0", 2, 0));
  EXPECT_EQ(json::parse(chat.body())["prompt_token_ids"], json({7, 8}));
}

TEST(OpenAiAnswer, CountsThePromptFromTheFirstEventOn) {
  const std::string rest =
      R"("n": 2, "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}})";
  const auto piece = [](const char* choice) {
    Delta delta{choice, "zero", {0}, {}};
    delta.prompt_tokens = 7;
    return delta;
  };
  for (const bool of_chat : {false, true}) {
    OpenAiAnswer answer = answer_to(of_chat ? parse_chat(R"({"messages": [{"role": "user", "content": "p"}], )" + rest)
                                            : parse_completion(R"({"prompt": "p", )" + rest));
    std::string stream;
    for (const char* choice : {"1", "0", "1"}) stream += answer.add(piece(choice));
    const auto list = events(stream);
    ASSERT_EQ(list.size(), of_chat ? 5u : 3u) << "a chat's choices begin with their role";
    for (const json& event : list) EXPECT_EQ(event["usage"]["prompt_tokens"], 7) << event;
    EXPECT_EQ(list.back()["usage"]["completion_tokens"], 3);
    EXPECT_EQ(list.back()["usage"]["total_tokens"], 10);
  }
}

TEST(OpenAiAnswer, KeepsChoicesApartAndCountsEachPromptOnce) {
  OpenAiAnswer answer = answer_to(parse_completion(R"({"prompt": ["p", "q"], "n": 2, "stream": true,
      "stream_options": {"include_usage": true, "continuous_usage_stats": true}})"));
  EXPECT_EQ(events(answer.add({"3", "three", {0}, {}}))[0]["choices"][0]["index"], 3);
  for (const int i : {0, 1, 2}) {
    EXPECT_EQ(events(answer.finish(done(std::to_string(i), i < 2 ? 10 : 20, 1))).size(), 1u);
    EXPECT_FALSE(answer.ended());
  }
  const auto last = events(answer.finish(done("3", 20, 2)));
  ASSERT_EQ(last.size(), 3u);
  EXPECT_EQ(last[0]["usage"]["completion_tokens"], 5);
  EXPECT_EQ(last[1]["usage"], json::parse(R"({"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35,
      "prompt_tokens_details": {"cached_tokens": 2}})"));
  EXPECT_EQ(answer.add({"3", "late", {0}, {}}), "");
  EXPECT_EQ(answer.finish(done("4", 1, 1)), "");
}

}  // namespace
}  // namespace lorikeet::comm
