// What the HTTP door says of requests that are wrong: which status, which field, and what would be right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/head/http_api_fixture.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(HttpApiTest, NamesTheBaseModelWhereThereIsNoSuchModel) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "model": "gpt"})");
  api_->said(asked_[0].first, comm::Failure{"0", "unknown_adapter", "there is no adapter \"gpt\""});
  EXPECT_EQ(body(1)["error"]["message"], "there is no adapter \"gpt\"; the base model is \"tiny\"");
  EXPECT_EQ(body(1)["error"]["param"], "model");
  ask(2, "GET", "/v1/models/gpt");
  EXPECT_EQ(body(2)["error"]["message"], "there is no model \"gpt\"; the base model is \"tiny\"");
}

TEST_F(HttpApiTest, NamesTheFieldOfWhatTheGatewayRefuses) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "temperature": 3})");
  comm::Failure refusal{"0", "invalid_request", "temperature is 3, not in 0 .. 2"};
  refusal.field = "temperature";
  api_->said(asked_[0].first, refusal);
  EXPECT_EQ(answered_[1].answer.status, 400);
  EXPECT_EQ(body(1)["error"]["param"], "temperature");
}

TEST_F(HttpApiTest, RefusesMoreAnswersThanMayEverRunOrWait) {
  auto context = validation_->context();
  context.max_answers = 4;
  few_may_wait_ = std::make_shared<RequestValidation>(std::move(context));
  open();
  ask(1, "POST", "/v1/completions", R"({"prompt": ["x", "y"], "n": 3})");
  EXPECT_EQ(answered_[1].answer.status, 400);
  EXPECT_EQ(body(1)["error"]["message"],
            "the request asks for 6 answers, at most 4 may run or wait (--max-num-seqs, --max-num-queued-reqs)");
  EXPECT_EQ(body(1)["error"]["param"], "n");
  ask(3, "POST", "/v1/completions", R"({"prompt": ["v", "w", "x", "y", "z"]})");
  EXPECT_EQ(answered_[3].answer.status, 400);
  EXPECT_EQ(body(3)["error"]["param"], "prompt");
  EXPECT_THAT(asked_, IsEmpty());
  ask(2, "POST", "/v1/completions", R"({"prompt": ["x", "y"], "n": 2})");
  EXPECT_EQ(asked_.size(), 4u);
}

TEST_F(HttpApiTest, TellsAFailureFromAClientThatHasLeft) {
  ask(1, "POST", "/v1/completions", R"({"prompt": "x", "n": 2})");
  api_->said(asked_[0].first, comm::Failure{"0", "queue_full", "full"});
  ask(2, "POST", "/v1/completions", R"({"prompt": "x"})");
  api_->gone(2);
  EXPECT_EQ(left_.size(), 2u);
  EXPECT_THAT(client_left_, ElementsAre(false, true));
}

TEST_F(HttpApiTest, TokenizesForModelsThatThereAre) {
  const std::pair<const char*, const char*> bodies[] = {{"/tokenize", R"({"prompt": "x", "model": )"},
                                                        {"/detokenize", R"({"tokens": [5], "model": )"}};
  comm::ExchangeId id = 0;
  for (const auto& [path, begin] : bodies) {
    for (const char* served : {"null", R"("")", R"("tiny")", R"("moby")", R"("tiny:kjv")"}) {
      ask(++id, "POST", path, std::string(begin) + served + "}");
      EXPECT_EQ(answered_[id].answer.status, 200) << path << served;
    }
    ask(++id, "POST", path, std::string(begin) + R"("no"})");
    EXPECT_EQ(answered_[id].answer.status, 404) << path;
    EXPECT_EQ(error_code(id), "model_not_found");
    EXPECT_THAT(body(id)["error"]["message"].get<std::string>(), HasSubstr("the base model is \"tiny\""));
  }
  CredentialOptions credential;
  credential.key = "secret";
  credential.all_adapters = false;
  credential.adapters = {"moby"};
  come_with(credential);
  ask(++id, "POST", "/tokenize", R"({"prompt": "x", "model": "kjv"})");
  EXPECT_EQ(answered_[id].answer.status, 403);
  ask(++id, "POST", "/tokenize", R"({"prompt": "x", "model": "moby"})");
  EXPECT_EQ(answered_[id].answer.status, 200);
}

TEST_F(HttpApiTest, DetokenizesNoIdsOutsideOfTheVocabulary) {
  comm::ExchangeId id = 0;
  for (const char* ids : {"[-1]", "[99999]", "[5, 2048]"}) {
    ask(++id, "POST", "/detokenize", std::string(R"({"tokens": )") + ids + "}");
    EXPECT_EQ(answered_[id].answer.status, 400) << ids;
    EXPECT_THAT(body(id)["error"]["message"].get<std::string>(), HasSubstr("outside of the vocabulary 0 .. 2047"));
  }
  ask(++id, "POST", "/detokenize", R"({"tokens": []})");
  EXPECT_EQ(body(id)["prompt"], "");
}

}  // namespace
}  // namespace lorikeet::actors
