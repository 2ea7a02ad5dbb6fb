// The routes of the HTTP door between a test that plays the HTTP server and a test that plays the gateway.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "actors/head/http_api.h"

namespace lorikeet::actors {

class HttpApiTest : public ::testing::Test {
 protected:
  struct Answered {
    comm::HttpAnswer answer;  // or the head of a stream
    bool begun = false, ended = false;
    std::string pieces;
  };

  static void SetUpTestSuite() {
    const auto dir = std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4";
    auto tokenizer = model::Tokenizer::load(dir).value();
    auto chat = model::ChatTemplate::load(dir, *tokenizer);
    validation_ = std::make_shared<RequestValidation>(RequestValidation::Context{
        model::read_model_config(dir).value(), model::read_generation_defaults(dir).value(), tokenizer, std::move(chat),
        100, AdapterNames(AdapterNames::List{{"kjv", "/adapters/kjv"}, {"moby", "/adapters/moby"}})});
  }
  static void TearDownTestSuite() { validation_.reset(); }

  HttpApiTest() { open(); }

  void open() {
    HttpApi::Setup setup;
    HttpRoutes::Options routes;
    routes.access = access_;
    setup.routes = std::make_shared<HttpRoutes>(routes);
    setup.validation = few_may_wait_ ? few_may_wait_ : validation_;
    setup.model_names = {"tiny", more_names_};
    setup.model_root = "/models/tiny";
    setup.metrics_text = [](const ServerStatus& status) { return "of " + status.model; };
    setup.short_body_bytes = 4096;
    HttpApi::Outside outside;
    outside.ask_gateway = [this](uint64_t client, std::shared_ptr<const Grant> grant, comm::ClientMessage message,
                                 bool is_counted) {
      tenants_.push_back(grant->tenant);
      counted_.push_back(is_counted);
      if (auto* request = std::get_if<comm::GenerateRequest>(&message)) {
        asked_.emplace_back(client, std::move(*request));
      } else if (auto* change = std::get_if<comm::AdapterRequest>(&message)) {
        changes_.emplace_back(client, std::move(*change));
      } else {
        status_asked_by_ = client;
      }
    };
    outside.leave_gateway = [this](uint64_t client, bool left) {
      left_.push_back(client);
      client_left_.push_back(left);
    };
    outside.answer = [this](comm::ExchangeId id, comm::HttpAnswer answer) {
      answered_[id] = {std::move(answer), false, true, ""};
    };
    outside.begin = [this](comm::ExchangeId id, comm::HttpAnswer head) {
      answered_[id] = {std::move(head), true, false, ""};
    };
    outside.write = [this](comm::ExchangeId id, std::string piece) { answered_[id].pieces += piece; };
    outside.end = [this](comm::ExchangeId id) { answered_[id].ended = true; };
    outside.elsewhere = [this](HttpApi::Work work) { elsewhere_.push_back(std::move(work)); };
    outside.reset_prefix_cache = [this](std::function<void(bool)> then) { resets_.push_back(std::move(then)); };
    outside.now = [] { return int64_t{1700000000}; };
    api_ = std::make_unique<HttpApi>(std::move(setup), std::move(outside));
  }

  // From now on everybody comes with this key.
  void come_with(const CredentialOptions& credential) {
    AccessOptions options;
    options.credentials = {credential};
    access_ = std::make_shared<const Access>(options);
    key_ = credential.key;
    open();
  }

  void ask(comm::ExchangeId id, std::string method, std::string target, std::string body = "") {
    comm::HttpRequest request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.headers = {{"content-type", "application/json"},
                       {"x-request-id", "r" + std::to_string(id)},
                       {"authorization", "Bearer " + key_}};
    request.body = std::move(body);
    api_->request(id, std::move(request));
  }

  nlohmann::json body(comm::ExchangeId id) { return nlohmann::json::parse(answered_[id].answer.body); }
  std::string error_code(comm::ExchangeId id) { return body(id)["error"]["code"].get<std::string>(); }

  comm::Done done(const std::string& id) {
    comm::Done done;
    done.id = id;
    done.finish_reason = "length";
    done.usage = {3, 1, 4, 0};
    return done;
  }

  static inline std::shared_ptr<const RequestValidation> validation_;
  std::vector<std::string> more_names_;                    // of the base model
  std::shared_ptr<const RequestValidation> few_may_wait_;  // in its place, where it is there
  std::shared_ptr<const Access> access_;
  std::string key_ = "none";
  std::vector<std::string> tenants_;  // who asked the gateway
  std::vector<bool> counted_;         // whether that counted already
  std::vector<std::pair<uint64_t, comm::GenerateRequest>> asked_;
  std::vector<std::pair<uint64_t, comm::AdapterRequest>> changes_;
  uint64_t status_asked_by_ = 0;
  std::vector<uint64_t> left_;
  std::vector<bool> client_left_;  // of these, whether the client itself has gone
  std::map<comm::ExchangeId, Answered> answered_;
  std::deque<HttpApi::Work> elsewhere_;
  std::vector<std::function<void(bool)>> resets_;
  std::unique_ptr<HttpApi> api_;
};

}  // namespace lorikeet::actors
