#include "comm/client/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

namespace lorikeet::comm {
namespace {

using nlohmann::json;

Result<GenerateRequest> parsed(std::string_view text) {
  auto line = parse_request(text);
  if (!line) return tl::unexpected(line.error());
  return std::move(line->request);
}

std::string error_of(std::string_view text) {
  const Result<GenerateRequest> request = parsed(text);
  return request ? "parsed" : request.error().message;
}

TEST(RequestJson, ReadsEveryFieldOfALine) {
  const Result<GenerateRequest> request = parsed(R"({"id":"7","prompt":"Hi","adapter":"kjv","max_tokens":5,
    "temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"repetition_penalty":1.2,"presence_penalty":0.1,
    "frequency_penalty":-0.1,"seed":12345678901234567890,"stop":["a","b"],"stop_token_ids":[3],"logprobs":5,
    "prompt_logprobs":true,"ignore_eos":true,"include_stop_str_in_output":true,"skip_special_tokens":false,
    "logit_bias":{"15":-100},"min_tokens":2,"bad_words":["whale"],"allowed_token_ids":[1,2],
    "truncate_prompt_tokens":-1,"add_special_tokens":false,"cache_salt":"s","timeout":1.5,
    "return_token_ids":true})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->id, "7");
  EXPECT_EQ(request->prompt, "Hi");
  EXPECT_EQ(request->adapter, "kjv");
  EXPECT_EQ(request->max_tokens, 5);
  EXPECT_EQ(request->temperature, 0.5);
  EXPECT_EQ(request->top_p, 0.9);
  EXPECT_EQ(request->top_k, 40);
  EXPECT_EQ(request->min_p, 0.1);
  EXPECT_EQ(request->repetition_penalty, 1.2);
  EXPECT_EQ(request->presence_penalty, 0.1);
  EXPECT_EQ(request->frequency_penalty, -0.1);
  EXPECT_EQ(request->seed, 12345678901234567890U);
  EXPECT_EQ(request->stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request->stop_token_ids, std::vector<int32_t>{3});
  EXPECT_EQ(request->logprobs, 5);
  EXPECT_TRUE(request->prompt_logprobs && request->ignore_eos && request->include_stop_str_in_output);
  EXPECT_FALSE(request->skip_special_tokens);
  EXPECT_EQ(request->logit_bias, (std::vector<std::pair<int32_t, double>>{{15, -100}}));
  EXPECT_EQ(request->min_tokens, 2);
  EXPECT_EQ(request->bad_words, std::vector<std::string>{"whale"});
  EXPECT_EQ(request->allowed_token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(request->truncate_prompt_tokens, -1);
  EXPECT_EQ(request->add_special_tokens, false);
  EXPECT_EQ(request->cache_salt, "s");
  EXPECT_EQ(request->timeout, 1.5);
  EXPECT_TRUE(request->return_token_ids);
}

TEST(RequestJson, LeavesAbsentValuesAbsent) {
  const Result<GenerateRequest> request = parsed(R"({"id":"7","prompt_token_ids":[1,2],"adapter":null,"stop":null})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_FALSE(request->prompt || request->adapter || request->max_tokens || request->temperature || request->seed);
  EXPECT_EQ(request->prompt_token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_TRUE(request->skip_special_tokens);
}

TEST(RequestJson, TakesOneStringToStopAt) {
  EXPECT_EQ(parsed(R"({"id":"7","prompt":"","stop":"END"})")->stop, std::vector<std::string>{"END"});
}

TEST(RequestJson, ReadsAChat) {
  const auto request = parsed(R"({"id":"7","messages":[{"role":"user","content":"Hi"}],"temperature":0})");
  ASSERT_TRUE(request) << request.error().message;
  ASSERT_EQ(request->messages->size(), 1u);
  EXPECT_EQ(request->messages->front().content, "Hi");
  EXPECT_EQ(request->temperature, 0);
}

TEST(RequestJson, TakesTheDevelopersRoleForTheSystems) {
  const auto request = parsed(R"({"id":"7","messages":[{"role":"developer","content":"a"}]})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_EQ(request->messages->at(0).role, "system");
}

TEST(RequestJson, SaysWhatIsWrongWithALine) {
  EXPECT_EQ(error_of("[]"), "the message must be an object, not a list");
  EXPECT_EQ(error_of(R"({"prompt":"x"})"), "id is missing");
  EXPECT_EQ(error_of(R"({"id":7.5,"prompt":"x"})"), "id must be a string, not a number");
  EXPECT_EQ(error_of(R"({"id":true,"prompt":"x"})"), "id must be a string, not a boolean");
  EXPECT_EQ(error_of(R"({"id":"7","prompt":5})"), "prompt must be a string, not a number");
  EXPECT_EQ(error_of(R"({"id":"7","prompt_token_ids":[1,"2"]})"),
            "prompt_token_ids[1] must be an integer, not a string");
  EXPECT_EQ(error_of(R"({"id":"7","prompt_token_ids":[4294967296]})"),
            "prompt_token_ids[0] must be within -2147483648 .. 2147483647, not 4294967296");
  EXPECT_EQ(error_of(R"({"id":"7","prompt_logprobs":5})"), "prompt_logprobs must be a boolean, not a number");
  EXPECT_EQ(error_of(R"({"id":"7","messages":[{"role":"user"}]})"), "messages[0].content is missing");
  EXPECT_EQ(error_of(R"({"id":"7","prompt":"x","seed":-1})"), "seed must be within 0 .. 18446744073709551615, not -1");
  EXPECT_EQ(error_of(R"({"id":"7","prompt":"x","best_of":2})"), "the message has an unknown field \"best_of\"");
}

TEST(RequestJson, RefusesSizesThatNoServerWouldTake) {
  EXPECT_EQ(error_of(R"({"id":"","prompt":"x"})"), "id must not be empty");
  EXPECT_EQ(error_of(fmt::format(R"({{"id":"{}","prompt":"x"}})", std::string(257, 'i'))),
            "id has 257 bytes, more than 256");
  EXPECT_EQ(error_of(fmt::format(R"({{"id":"7","adapter":"{}"}})", std::string(300, 'a'))),
            "adapter has 300 bytes, more than 256");
  json request = {{"id", "7"}, {"prompt", "x"}};
  request["stop"] = std::vector<std::string>(257, "s");
  EXPECT_EQ(error_of(request.dump()), "stop has 257 strings, more than 256");
  request["stop"] = std::string(5000, 's');
  EXPECT_EQ(error_of(request.dump()), "stop has a string of 5000 bytes, more than 4096");
  request.erase("stop");
  request["stop_token_ids"] = std::vector<int>(5000, 1);
  EXPECT_EQ(error_of(request.dump()), "stop_token_ids has 5000 ids, more than 4096");
  request.erase("stop_token_ids");
  request["allowed_token_ids"] = std::vector<int>(20000, 1);
  EXPECT_EQ(error_of(request.dump()), "allowed_token_ids has 20000 ids, more than 16384");
  request.erase("allowed_token_ids");
  request["logit_bias"] = std::vector<std::pair<int, int>>(4097, {1, 1});
  EXPECT_EQ(error_of(request.dump()), "logit_bias has 4097 tokens, more than 4096");
  request.erase("logit_bias");
  request["bad_words"] = std::vector<std::string>(257, "w");
  EXPECT_EQ(error_of(request.dump()), "bad_words has 257 strings, more than 256");
  request["bad_words"] = std::string(257, 'w');
  EXPECT_EQ(error_of(request.dump()), "bad_words has a string of 257 bytes, more than 256");
  request["bad_words"] = "";
  EXPECT_EQ(error_of(request.dump()), "bad_words has an empty string");
  request.erase("bad_words");
  request["cache_salt"] = std::string(257, 's');
  EXPECT_EQ(error_of(request.dump()), "cache_salt has 257 bytes, more than 256");
}

TEST(RequestJson, RefusesValuesThatAreNotFinite) {
  GenerateRequest request;
  request.id = "7";
  request.top_p = std::numeric_limits<double>::quiet_NaN();
  const Result<void> checked = check_sizes(request);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().message, "top_p must be a finite number");
}

TEST(RequestJson, FindsTheIdOfALineThatIsWrong) {
  EXPECT_EQ(find_id(R"({"prompt":5,"id":"7"})"), "7");
  EXPECT_EQ(find_id(R"({"id":7})"), "7");
  EXPECT_EQ(find_id(R"({"id":7.5})"), "");
  EXPECT_EQ(find_id(R"({"id":"7")"), "");
  EXPECT_EQ(find_id(R"(["id","7"])"), "");
}

TEST(RequestJson, AnswersRandomMutationsWithErrorsAlone) {
  const std::string good =
      R"({"id":"7","messages":[{"role":"user","content":"Hi"}],"prompt_token_ids":[1,22],"top_p":0.5,
    "stop":["a"],"logprobs":2,"prompt_logprobs":false})";
  std::mt19937 random(5);
  int good_lines = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (uint32_t changes = 1 + random() % 3; changes > 0; --changes) {
      text[random() % text.size()] = "{}[]\",:.0179aeft\\u "[random() % 19];
    }
    const Result<GenerateRequest> request = parsed(text);
    good_lines += request ? 1 : 0;
    if (!request) {
      EXPECT_FALSE(request.error().message.empty());
      EXPECT_LT(request.error().message.size(), 400u);
    }
  }
  EXPECT_GT(good_lines, 0);
}

RequestLine request_with(std::optional<int32_t> logprobs, bool prompt_logprobs) {
  RequestLine line;
  line.request.id = "7";
  line.request.logprobs = logprobs;
  line.request.prompt_logprobs = prompt_logprobs;
  return line;
}

TEST(ResultLine, CollectsTheDeltas) {
  ResultLine line(request_with(1, true));
  line.add({"7", "Hel", {1}, {{{1, -0.5F}}}});
  line.add({"7", "", {2}, {{{2, -1.5F}, {3, -2.F}}}});
  line.add({"7", "lo", {}, {}});
  const std::string text = line.finish(Done{"7", "stop", "END", {std::nullopt, -0.25F}, 9, {2, 2, 4, 0}});
  EXPECT_EQ(json::parse(text), json::parse(R"({"id":"7","text":"Hello","token_ids":[1,2],"finish_reason":"stop",
    "stop_reason":"END","seed":9,"logprobs":[[[1,-0.5]],[[2,-1.5],[3,-2.0]]],"prompt_logprobs":[null,-0.25],
    "usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"cached_tokens":0},"error":null})"));
  EXPECT_EQ(text.find('\n'), std::string::npos);
}

TEST(ResultLine, HasNullForLogprobsThatWereNotAskedFor) {
  const json line =
      json::parse(ResultLine(request_with(std::nullopt, false)).finish(Done{"7", "length", {}, {}, 0, {}}));
  EXPECT_TRUE(line["logprobs"].is_null());
  EXPECT_TRUE(line["prompt_logprobs"].is_null());
  EXPECT_TRUE(line["stop_reason"].is_null());
  EXPECT_EQ(line["token_ids"], json::array());
}

TEST(ResultLine, KeepsWhatWasGeneratedBeforeAFailure) {
  ResultLine line(request_with(std::nullopt, false));
  line.add({"7", "Hel", {1}, {}});
  const json result = json::parse(line.finish(Failure{"7", "rank_lost", "rank 1 died"}));
  EXPECT_EQ(result["text"], "Hel");
  EXPECT_EQ(result["error"], (json{{"code", "rank_lost"}, {"message", "rank 1 died"}}));
  EXPECT_TRUE(result["finish_reason"].is_null());
}

TEST(ResultLine, NumbersALineThatHoldsNoRequest) {
  EXPECT_EQ(json::parse(unreadable_line(3, "", "not JSON: x")),
            json::parse(R"({"id":null,"line":3,"error":{"code":"invalid_request","message":"not JSON: x"}})"));
  EXPECT_EQ(json::parse(unreadable_line(3, R"({"id":"7","prompt":5})", "x"))["id"], "7");
  EXPECT_EQ(json::parse(unreadable_line(3, R"({"id":7,"prompt":5})", "x"))["id"], 7);
}

TEST(ResultLine, WritesAnIdAsItCame) {
  for (const json& id : {json(7), json(-7), json(18446744073709551615U), json("7")}) {
    const auto line = parse_request(json{{"id", id}, {"prompt", "x"}}.dump());
    ASSERT_TRUE(line) << id;
    EXPECT_EQ(line->request.id, id.is_string() ? id.get<std::string>() : id.dump());
    EXPECT_EQ(json::parse(ResultLine(*line).finish(Done{"0", "length", {}, {}, 0, {}}))["id"], id);
    EXPECT_EQ(json::parse(ResultLine(*line).finish(Failure{"0", "too_long", "x"}))["id"], id);
  }
}

}  // namespace
}  // namespace lorikeet::comm
