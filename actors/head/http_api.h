// What the routes of the HTTP door do: reads their bodies, asks the gateway as a ZeroMQ client would, and puts its
// events together as OpenAI's clients read them.
//
// To the gateway every exchange is a client of its own (client_of), whose requests are named by the index of their
// choice; so an exchange that ends early is a client that is gone.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "actors/head/http_routes.h"
#include "actors/head/request_validation.h"
#include "actors/wire/server_status.h"
#include "comm/client/client_messages.h"
#include "comm/http/http_server.h"
#include "comm/openai/models.h"
#include "comm/openai/openai_answer.h"
#include "comm/openai/openai_request.h"

namespace lorikeet::actors {

// Clients of the HTTP door, told from ZeroMQ's by the highest bit.
inline constexpr uint64_t kHttpClients = uint64_t{1} << 63;
constexpr bool is_http_client(uint64_t client) {
  return (client & kHttpClients) != 0;
}

// Threads: one.
class HttpApi {
 public:
  // Runs on a thread where it may take time; the function that it returns is then run on the caller's thread.
  using Work = std::function<std::function<void()>()>;

  struct Outside {
    // is_counted: another part of the same exchange has been counted by the tenant's limit already.
    std::function<void(uint64_t client, std::shared_ptr<const Grant>, comm::ClientMessage, bool is_counted)>
        ask_gateway;
    // Cancels the client's requests; nobody is answered. left: because the client is gone, not because of a failure.
    std::function<void(uint64_t client, bool left)> leave_gateway;
    std::function<void(comm::ExchangeId, comm::HttpAnswer)> answer, begin;
    std::function<void(comm::ExchangeId, std::string)> write;
    std::function<void(comm::ExchangeId)> end;
    std::function<void(Work)> elsewhere;
    std::function<void(std::function<void(bool done)>)> reset_prefix_cache;  // the scheduler's; done: it has answered
    std::function<int64_t()> now;                                            // seconds since 1970
  };
  struct Setup {
    std::shared_ptr<const HttpRoutes> routes;
    std::shared_ptr<const RequestValidation> validation;
    comm::ModelNames model_names;
    std::string model_root;                                        // directory of the checkpoint
    std::function<std::string(const ServerStatus&)> metrics_text;  // may be empty: there are none
    // May be empty, too. answered: a prompt has all its `n` choices, the longest with so many tokens. passed_over: a body
    // had unknown fields.
    std::function<void(int32_t n, int32_t longest)> answered;
    std::function<void(const std::string& request_id, const std::vector<std::string>& fields)> passed_over;
    size_t short_body_bytes = 64 << 10;  // up to here a body is read in less time than a message takes
  };

  HttpApi(Setup setup, Outside outside);

  void request(comm::ExchangeId exchange, comm::HttpRequest request);  // not one that HttpRoutes::refuse() answers
  void gone(comm::ExchangeId exchange);
  void said(uint64_t client, comm::ServerMessage message);  // the gateway, to a client of this door

  // Whether the server can answer now; if not, why.
  void serving(bool serves, std::string why);

  size_t open_exchanges() const { return exchanges_.size(); }

 private:
  struct Exchange {
    comm::HttpHeaders headers;  // of its answer
    std::string request_id;
    std::shared_ptr<const Grant> grant;
    std::optional<comm::OpenAiAnswer> answer;  // once its body was read
    int32_t n = 1;                             // choices per prompt
    bool stream = false, begun = false;
    bool wants_metrics = false;            // when the server's state has come
    bool generates = false;                // counts as load
    std::optional<HttpRoute> of_adapters;  // when the adapter cache has answered
  };

  static uint64_t client_of(comm::ExchangeId exchange) { return exchange | kHttpClients; }

  Exchange* find(comm::ExchangeId exchange);
  void finish(comm::ExchangeId exchange, int status, std::string body, comm::HttpHeaders more = {},
              const char* content_type = "application/json");
  void refuse(comm::ExchangeId exchange, const comm::OpenAiError& error);
  comm::OpenAiError error_of(const comm::Failure& failure) const;
  std::optional<comm::OpenAiError> wrong_model(const std::optional<std::string>& name, const Grant& grant) const;
  void now_or_elsewhere(size_t bytes, Work work);

  void generate(comm::ExchangeId exchange, comm::OpenAiRequest::Kind kind, std::shared_ptr<const std::string> body);
  void generate(comm::ExchangeId exchange, const comm::OpenAiRequest& request,
                std::vector<comm::OpenAiAnswer::Prompt> prompts);
  std::vector<comm::OpenAiAnswer::Prompt> shown_prompts(const comm::OpenAiRequest& request) const;
  void note_answer(const Exchange& known) const;
  void tokens_came(comm::ExchangeId exchange, Exchange& known, std::string events);
  void failed(comm::ExchangeId exchange, Exchange& known, const comm::Failure& failure);

  void models(comm::ExchangeId exchange);
  void model(comm::ExchangeId exchange, const std::string& name);
  void change_adapter(comm::ExchangeId exchange, HttpRoute route, const std::string& name, const std::string& body);
  void adapters_said(comm::ExchangeId exchange, HttpRoute route, const comm::ServerMessage& message);
  void tokenize(comm::ExchangeId exchange, std::shared_ptr<const std::string> body);
  void detokenize(comm::ExchangeId exchange, std::shared_ptr<const std::string> body);
  void health(comm::ExchangeId exchange);
  void load(comm::ExchangeId exchange);
  void reset_prefix_cache(comm::ExchangeId exchange);
  void metrics(comm::ExchangeId exchange);
  void status_came(comm::ExchangeId exchange, const std::string& json);

  const Setup setup_;
  const Outside outside_;
  const int64_t started_;
  bool serves_ = false;
  std::string why_not_ = "the ranks are loading";
  const std::string openapi_;
  std::unordered_map<comm::ExchangeId, Exchange> exchanges_;
};

}  // namespace lorikeet::actors
