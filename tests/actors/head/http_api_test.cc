#include "actors/head/http_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "comm/codec/json_codec.h"
#include "tests/actors/head/http_api_fixture.h"

namespace lorikeet::actors {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST_F(HttpApiTest, AsksTheGatewayForEveryChoiceAndAnswersOnce) {
  ask(7, "POST", "/v1/completions", R"({"model": "moby", "prompt": "x", "n": 2, "max_tokens": 1})");
  ASSERT_EQ(asked_.size(), 2u);
  const uint64_t client = asked_[0].first;
  EXPECT_TRUE(is_http_client(client));
  EXPECT_EQ(asked_[1].first, client);
  EXPECT_EQ(asked_[0].second.id, "r7/0");
  EXPECT_EQ(asked_[1].second.id, "r7/1");
  EXPECT_EQ(asked_[0].second.adapter, "moby");
  EXPECT_THAT(counted_, ElementsAre(false, true)) << "a limit of requests counts one";
  api_->said(client, comm::Delta{"r7/1", " b", {2}, {}});
  api_->said(client, comm::Delta{"r7/0", " a", {1}, {}});
  api_->said(client, done("0"));
  EXPECT_TRUE(answered_.empty());
  api_->said(client, done("1"));
  ASSERT_TRUE(answered_[7].ended);
  EXPECT_EQ(answered_[7].answer.status, 200);
  EXPECT_THAT(answered_[7].answer.headers, Contains(Pair("X-Request-Id", "r7")));
  EXPECT_EQ(body(7)["id"], "cmpl-r7");
  EXPECT_EQ(body(7)["model"], "moby");
  EXPECT_EQ(body(7)["choices"][0]["text"], " a");
  EXPECT_EQ(body(7)["choices"][1]["text"], " b");
  EXPECT_EQ(api_->open_exchanges(), 0u);
  EXPECT_TRUE(left_.empty());
}

TEST_F(HttpApiTest, StreamsEventsAsTheyComeAndItsHeadWithTheFirst) {
  ask(1, "POST", "/v1/chat/completions", R"({"messages": [{"role": "user", "content": "x"}], "stream": true})");
  EXPECT_TRUE(answered_.empty());
  api_->said(asked_[0].first, comm::Delta{"0", "a", {1}, {}});
  ASSERT_TRUE(answered_[1].begun);
  EXPECT_FALSE(answered_[1].ended);
  EXPECT_THAT(answered_[1].answer.headers, Contains(Pair("Content-Type", "text/event-stream; charset=utf-8")));
  EXPECT_THAT(answered_[1].pieces, HasSubstr("\"content\":\"a\""));
  api_->said(asked_[0].first, done("0"));
  EXPECT_TRUE(answered_[1].ended);
  EXPECT_THAT(answered_[1].pieces, HasSubstr("data: [DONE]\n\n"));
  EXPECT_EQ(api_->open_exchanges(), 0u);
}

TEST_F(HttpApiTest, TakesTheAdapterFromTheModelsName) {
  const std::pair<const char*, std::optional<std::string>> cases[] = {
      {R"("tiny")", std::nullopt},          {"null", std::nullopt}, {R"("tiny:kjv")", "kjv"}, {R"("kjv")", "kjv"},
      {R"("other")", std::string("other")}, {R"("")", std::nullopt}};
  comm::ExchangeId id = 0;
  for (const auto& [model, adapter] : cases) {
    ask(++id, "POST", "/v1/completions", std::string(R"({"prompt": "x", "model": )") + model + "}");
    EXPECT_EQ(asked_.back().second.adapter, adapter) << model;
  }
  api_->said(asked_.back().first, done("0"));  // of the empty name
  EXPECT_EQ(body(id)["model"], "tiny");
}

TEST_F(HttpApiTest, ServesTheBaseModelUnderEachOfItsNames) {
  more_names_ = {"gpt-4"};
  open();
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "model": "gpt-4"})");
  EXPECT_EQ(asked_.back().second.adapter, std::nullopt);
  api_->said(asked_.back().first, done("0"));
  EXPECT_EQ(body(1)["model"], "gpt-4");
  ask(2, "GET", "/v1/models");
  ASSERT_EQ(body(2)["data"].size(), 4u);
  EXPECT_EQ(body(2)["data"][1]["id"], "gpt-4");
  EXPECT_TRUE(body(2)["data"][1]["parent"].is_null());
  EXPECT_EQ(body(2)["data"][2]["parent"], "tiny");
  ask(3, "GET", "/v1/models/gpt-4");
  EXPECT_EQ(body(3)["id"], "gpt-4");
}

TEST_F(HttpApiTest, GivesAFailureItsStatusAndTakesTheOtherChoicesWithIt) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "model": "none", "n": 2, "stream": true})");
  const uint64_t client = asked_[0].first;
  api_->said(client, comm::Failure{"0", "unknown_adapter", "there is no adapter"});
  EXPECT_EQ(answered_[1].answer.status, 404);
  EXPECT_FALSE(answered_[1].begun);
  EXPECT_EQ(error_code(1), "model_not_found");
  EXPECT_THAT(left_, ElementsAre(client));
  api_->said(client, comm::Failure{"1", "unknown_adapter", "there is no adapter"});  // nobody waits for it
  EXPECT_EQ(api_->open_exchanges(), 0u);

  ask(2, "POST", "/v1/completions", R"({"prompt": "x"})");
  api_->said(asked_.back().first, comm::Failure{"0", "queue_full", "full"});
  EXPECT_EQ(answered_[2].answer.status, 429);
  EXPECT_THAT(answered_[2].answer.headers, Contains(Pair("Retry-After", "1")));
}

TEST_F(HttpApiTest, StreamsThePromptsLogprobsUnlessTheyAreTooMany) {
  ask(1, "POST", "/v1/completions", R"({"prompt": [7, 8], "stream": true, "prompt_logprobs": 0})");
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_TRUE(asked_[0].second.early_prompt_logprobs);
  comm::Delta first{"0", "a", {1}, {}};
  first.prompt = comm::PromptScores{{std::nullopt, -1.0F}, {0, 3}, {{}, {}}};
  api_->said(asked_[0].first, first);
  EXPECT_THAT(answered_[1].pieces, HasSubstr(R"("prompt_logprobs":[null,{"8":{"logprob":-1.0,"rank":3,)"));
  std::string ids = "1";
  for (int i = 1; i < 1000; ++i) ids += ",1";
  const std::string body = R"({"prompt": [)" + ids + R"(], "n": 33, "prompt_logprobs": 0, "stream": )";
  ask(2, "POST", "/v1/completions", body + "true}");
  EXPECT_EQ(answered_[2].answer.status, 400);
  EXPECT_THAT(answered_[2].answer.body, HasSubstr("33000 log-probabilities of prompts' tokens in a stream"));
  EXPECT_EQ(asked_.size(), 1u);
  ask(3, "POST", "/v1/completions", body + "false}");
  EXPECT_EQ(asked_.size(), 34u);
  EXPECT_FALSE(asked_.back().second.early_prompt_logprobs);
}

TEST_F(HttpApiTest, EndsAStreamThatHasBegunWithTheFailure) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "stream": true})");
  api_->said(asked_[0].first, comm::Delta{"0", "a", {1}, {}});
  api_->said(asked_[0].first, comm::Failure{"0", "rank_lost", "rank 1 is gone"});
  EXPECT_TRUE(answered_[1].ended);
  EXPECT_THAT(answered_[1].pieces, HasSubstr(R"("message":"rank 1 is gone")"));
  EXPECT_THAT(answered_[1].pieces, HasSubstr("data: [DONE]\n\n"));
}

TEST_F(HttpApiTest, LeavesTheGatewayWhenItsClientIsGone) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x"})");
  api_->gone(1);
  EXPECT_THAT(left_, ElementsAre(asked_[0].first));
  api_->said(asked_[0].first, done("0"));
  EXPECT_TRUE(answered_.empty());
  api_->gone(1);
  EXPECT_EQ(left_.size(), 1u);
}

TEST_F(HttpApiTest, ReadsLongBodiesElsewhereAndForgetsThemWhenTheirClientIsGone) {
  const std::string long_body = R"({"prompt": ")" + std::string(8000, 'x') + "\"}";
  ask(1, "POST", "/v1/completions", long_body);
  ask(2, "POST", "/v1/completions", long_body);
  ask(3, "POST", "/tokenize", long_body);
  EXPECT_TRUE(asked_.empty());
  ASSERT_EQ(elsewhere_.size(), 3u);
  api_->gone(2);
  for (const auto& work : elsewhere_) work()();
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].second.prompt->size(), 8000u);
  EXPECT_GT(body(3)["count"].get<int>(), 0);
}

TEST_F(HttpApiTest, RefusesABodyThatIsWrong) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "temperature": "hot"})");
  EXPECT_EQ(answered_[1].answer.status, 400);
  EXPECT_EQ(body(1)["error"]["param"], "temperature");
  ask(2, "POST", "/v1/chat/completions", "{");
  EXPECT_EQ(answered_[2].answer.status, 400);
  EXPECT_TRUE(asked_.empty());
}

TEST_F(HttpApiTest, ListsTheModelAndItsAdapters) {
  ask(1, "GET", "/v1/models");
  ASSERT_EQ(body(1)["data"].size(), 3u);
  EXPECT_EQ(body(1)["data"][0]["id"], "tiny");
  EXPECT_EQ(body(1)["data"][2]["parent"], "tiny");
  ask(2, "GET", "/v1/models/moby");
  EXPECT_EQ(body(2)["root"], "/adapters/moby");
  ask(3, "GET", "/v1/models/tiny:kjv");
  EXPECT_EQ(body(3)["id"], "kjv");
  ask(4, "GET", "/v1/models/none");
  EXPECT_EQ(answered_[4].answer.status, 404);
  EXPECT_EQ(error_code(4), "model_not_found");
}

TEST_F(HttpApiTest, TokenizesAndDetokenizesAsTheModelDoes) {
  ask(1, "POST", "/tokenize", R"({"prompt": "The whale, the whale!", "return_token_strs": true})");
  const auto ids = body(1)["tokens"].get<std::vector<int32_t>>();
  EXPECT_EQ(ids, validation_->context().tokenizer->encode("The whale, the whale!", true));
  EXPECT_EQ(body(1)["count"], ids.size());
  EXPECT_EQ(body(1)["max_model_len"], 100);
  const json answer = body(1);  // the loop needs it alive
  std::string text;
  for (const json& piece : answer["token_strs"]) text += piece.get<std::string>();
  EXPECT_EQ(text, "The whale, the whale!");
  ask(2, "POST", "/detokenize", json{{"tokens", ids}}.dump());
  EXPECT_EQ(body(2)["prompt"], "The whale, the whale!");
  ask(3, "POST", "/tokenize", R"({"messages": [{"role": "user", "content": "x"}]})");
  EXPECT_EQ(answered_[3].answer.status, 200) << answered_[3].answer.body;
  ask(4, "POST", "/tokenize", R"({"prompt": ""})");
  EXPECT_EQ(body(4)["count"], 0);
}

TEST_F(HttpApiTest, IsHealthyWhenEveryRankServes) {
  ask(1, "GET", "/health");
  EXPECT_EQ(answered_[1].answer.status, 503);
  EXPECT_THAT(answered_[1].answer.headers, Contains(Pair("Retry-After", "1")));
  EXPECT_EQ(body(1)["error"]["message"], "the ranks are loading");
  api_->serving(true, "");
  ask(2, "GET", "/ping");
  EXPECT_EQ(answered_[2].answer.status, 200);
  EXPECT_EQ(answered_[2].answer.body, "");
  api_->serving(false, "rank 1 is gone");
  ask(3, "GET", "/health");
  EXPECT_EQ(body(3)["error"]["message"], "rank 1 is gone");
}

TEST_F(HttpApiTest, MakesItsMetricsOfTheServersState) {
  ask(1, "GET", "/metrics");
  ASSERT_TRUE(is_http_client(status_asked_by_));
  ServerStatus status;
  status.model = "tiny";
  api_->said(status_asked_by_, comm::StatusReply{"metrics", comm::to_json(status)});
  EXPECT_EQ(answered_[1].answer.body, "of tiny");
  EXPECT_THAT(answered_[1].answer.headers, Contains(Pair("Content-Type", HasSubstr("version=0.0.4"))));
  ask(2, "GET", "/metrics");
  api_->said(status_asked_by_, comm::Failure{"metrics", "internal", "the scheduler does not answer"});
  EXPECT_EQ(answered_[2].answer.status, 500);
  ask(3, "GET", "/metrics");
  api_->said(status_asked_by_, comm::StatusReply{"metrics", "{"});
  EXPECT_EQ(answered_[3].answer.status, 500);
}

TEST_F(HttpApiTest, AsksForTheTenantAndShowsItTheAdaptersThatItMayUse) {
  CredentialOptions credential;
  credential.key = "secret";
  credential.tenant = "acme";
  credential.all_adapters = false;
  credential.adapters = {"moby"};
  come_with(credential);
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "model": "kjv"})");
  EXPECT_THAT(tenants_, ElementsAre("acme"));
  comm::Failure refusal{"r1/0", "rate_limited", "enough"};
  refusal.retry_after_s = 7;
  api_->said(asked_[0].first, refusal);
  EXPECT_EQ(answered_[1].answer.status, 429);
  EXPECT_EQ(error_code(1), "rate_limit_exceeded");
  EXPECT_THAT(answered_[1].answer.headers, Contains(Pair("Retry-After", "7")));
  ask(2, "GET", "/v1/models");
  ASSERT_EQ(body(2)["data"].size(), 2u);
  EXPECT_EQ(body(2)["data"][0]["id"], "tiny");
  EXPECT_EQ(body(2)["data"][1]["id"], "moby");
  ask(3, "GET", "/v1/models/moby");
  EXPECT_EQ(answered_[3].answer.status, 200);
  ask(4, "GET", "/v1/models/kjv");
  EXPECT_EQ(answered_[4].answer.status, 404);
}

TEST_F(HttpApiTest, CountsAsLoadWhatGeneratesAndHasNoWholeAnswer) {
  ask(1, "GET", "/load");
  EXPECT_EQ(body(1), (json{{"server_load", 0}}));
  ask(2, "POST", "/v1/completions", R"({"prompt": "x"})");
  ask(3, "POST", "/v1/completions", R"({"prompt": "x", "stream": true})");
  ask(4, "POST", "/v1/completions", R"({"prompt": 1})");
  ask(5, "GET", "/load");
  EXPECT_EQ(body(5), (json{{"server_load", 2}}));
  api_->said(asked_[0].first, done("0"));
  api_->gone(3);
  ask(6, "GET", "/load");
  EXPECT_EQ(body(6), (json{{"server_load", 0}}));
}

TEST_F(HttpApiTest, HasThePrefixCacheForgotten) {
  ask(1, "POST", "/reset_prefix_cache");
  ask(2, "POST", "/reset_prefix_cache");
  ASSERT_EQ(resets_.size(), 2u);
  resets_[0](true);
  EXPECT_EQ(answered_[1].answer.status, 200);
  EXPECT_EQ(body(1), (json{{"success", true}}));
  resets_[1](false);
  EXPECT_EQ(answered_[2].answer.status, 500);
}

TEST_F(HttpApiTest, DescribesItself) {
  ask(1, "GET", "/openapi.json");
  EXPECT_EQ(body(1)["openapi"], "3.1.0");
}

TEST_F(HttpApiTest, LoadsAndUnloadsAdaptersAsVllmDoes) {
  ask(1, "POST", "/v1/load_lora_adapter", R"({"lora_name": "x", "lora_path": "/adapters/x", "load_inplace": true})");
  ASSERT_EQ(changes_.size(), 1u);
  EXPECT_EQ(changes_[0].second.action, "load");
  EXPECT_EQ(changes_[0].second.id, "r1");
  EXPECT_EQ(changes_[0].second.name, "x");
  EXPECT_EQ(changes_[0].second.path, "/adapters/x");
  EXPECT_TRUE(changes_[0].second.load_inplace);
  EXPECT_TRUE(answered_.empty());
  api_->said(changes_[0].first,
             comm::AdapterReply{"r1", "Success: LoRA adapter 'x' added successfully.", std::nullopt});
  EXPECT_EQ(answered_[1].answer.status, 200);
  EXPECT_EQ(answered_[1].answer.body, "Success: LoRA adapter 'x' added successfully.");
  EXPECT_THAT(answered_[1].answer.headers, Contains(Pair("Content-Type", "text/plain; charset=utf-8")));
  ask(2, "POST", "/v1/unload_lora_adapter", R"({"lora_name": "x", "lora_int_id": 7})");
  EXPECT_EQ(changes_.at(1).second.action, "unload");
  EXPECT_EQ(changes_.at(1).second.path, std::nullopt);
  api_->said(changes_[1].first, comm::Failure{"r2", "unknown_adapter", "The lora adapter 'x' cannot be found."});
  EXPECT_EQ(answered_[2].answer.status, 404);
  EXPECT_EQ(error_code(2), "model_not_found");
  EXPECT_EQ(body(2)["error"]["param"], "lora_name");
}

TEST_F(HttpApiTest, RefusesBodiesThatNameNoAdapterToLoad) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"lora_name": "x"})", "lora_path"},
      {R"({"lora_path": "/x"})", "lora_name"},
      {R"({"lora_name": "x", "lora_path": 1})", "lora_path"},
      {R"({"lora_name": "x", "lora_path": "/x", "load_inplace": "yes"})", "load_inplace"}};
  for (const auto& [text, param] : wrong) {
    ask(1, "POST", "/v1/load_lora_adapter", text);
    EXPECT_EQ(answered_[1].answer.status, 400) << text;
    EXPECT_EQ(body(1)["error"]["param"], param) << text;
  }
  ask(1, "POST", "/v1/load_lora_adapter", R"({"lora_name": "", "lora_path": "/x"})");
  EXPECT_EQ(body(1)["error"]["message"], "Both 'lora_name' and 'lora_path' must be provided.");
  ask(1, "POST", "/v1/unload_lora_adapter", "{}");
  EXPECT_EQ(body(1)["error"]["message"], "'lora_name' needs to be provided to unload a LoRA adapter.");
  ask(1, "POST", "/v1/load_lora_adapter", R"({"lora_name": "a\nb", "lora_path": "/x"})");
  EXPECT_THAT(body(1)["error"]["message"].get<std::string>(), HasSubstr("no control characters"));
  ask(1, "POST", "/v1/load_lora_adapter", std::string(5000, ' ') + "{}");
  EXPECT_EQ(answered_[1].answer.status, 413);
  EXPECT_TRUE(changes_.empty());
}

TEST_F(HttpApiTest, GivesFailuresOfChangesTheirStatus) {
  const std::pair<const char*, int> codes[] = {{"forbidden", 403},      {"invalid_request", 400},   {"conflict", 409},
                                               {"adapter_failed", 400}, {"adapter_not_found", 404}, {"queue_full", 429},
                                               {"timed_out", 408},      {"shutting_down", 503},     {"internal", 500}};
  comm::ExchangeId id = 0;
  for (const auto& [code, status] : codes) {
    ask(++id, "POST", "/v1/load_lora_adapter", R"({"lora_name": "x", "lora_path": "/x"})");
    api_->said(changes_.back().first, comm::Failure{"r", code, "why"});
    EXPECT_EQ(answered_[id].answer.status, status) << code;
    EXPECT_EQ(body(id)["error"]["message"], "why");
  }
}

TEST_F(HttpApiTest, ListsAndPinsAdapters) {
  ask(1, "GET", "/v1/adapters");
  EXPECT_EQ(changes_.at(0).second.action, "list");
  api_->said(changes_[0].first, comm::AdapterReply{"r1", "", R"({"adapters":[]})"});
  EXPECT_EQ(body(1), json::parse(R"({"adapters": []})"));
  ask(2, "POST", "/v1/adapters/my%2Fmoby/pin");
  EXPECT_EQ(changes_.at(1).second.action, "pin");
  EXPECT_EQ(changes_.at(1).second.name, "my/moby");
  api_->said(changes_[1].first, comm::AdapterReply{"r2", "'my/moby' is pinned", std::nullopt});
  EXPECT_EQ(body(2)["message"], "'my/moby' is pinned");
  ask(3, "POST", "/v1/adapters/moby/unpin", "{}");
  EXPECT_EQ(changes_.at(2).second.action, "unpin");
  ask(4, "POST", "/v1/adapters/moby/warm");
  EXPECT_EQ(changes_.at(3).second.action, "warm");
  ask(5, "POST", "/v1/adapters/moby/warm", "[]");
  EXPECT_EQ(answered_[5].answer.status, 400);
  EXPECT_EQ(changes_.size(), 4u);
}

TEST_F(HttpApiTest, ServesNamesThatComeAndGo) {
  AdapterNames names = validation_->context().adapters;
  names.set("late", "/adapters/late");
  ask(1, "GET", "/v1/models/late");
  EXPECT_EQ(body(1)["root"], "/adapters/late");
  EXPECT_EQ(body(1)["parent"], "tiny");
  ask(2, "GET", "/v1/models");
  EXPECT_EQ(body(2)["data"][3]["id"], "late");
  names.erase("late");
  ask(3, "GET", "/v1/models/late");
  EXPECT_EQ(answered_[3].answer.status, 404);
}

TEST_F(HttpApiTest, ShowsPeopleAPageThatHasNothingFromElsewhere) {
  ask(1, "GET", "/");
  const comm::HttpAnswer& answer = answered_[1].answer;
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.headers, Contains(Pair("Content-Type", "text/html; charset=utf-8")));
  EXPECT_THAT(answer.headers, Contains(Pair("Content-Security-Policy", HasSubstr("default-src 'none'"))));
  EXPECT_EQ(answer.body.rfind("<!doctype html>", 0), 0u);
  EXPECT_THAT(answer.body, HasSubstr("</html>"));
  for (const char* elsewhere : {"http:", "https:", "src=", "@import", "url("}) {
    EXPECT_EQ(answer.body.find(elsewhere), std::string::npos) << elsewhere;
  }
}

TEST_F(HttpApiTest, SaysItsVersion) {
  ask(1, "GET", "/version");
  EXPECT_THAT(body(1)["version"].get<std::string>(), ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

}  // namespace
}  // namespace lorikeet::actors
