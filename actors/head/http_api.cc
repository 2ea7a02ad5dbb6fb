#include "actors/head/http_api.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>

#include "actors/head/live_page.h"
#include "actors/head/metrics_text.h"
#include "comm/client/limits.h"
#include "comm/codec/json_codec.h"
#include "comm/openai/adapters.h"
#include "comm/openai/models.h"
#include "comm/openai/openai_error.h"
#include "comm/openai/openapi.h"
#include "comm/openai/tokenize.h"

namespace lorikeet::actors {
namespace {

using comm::ExchangeId;
using comm::OpenAiError;
using comm::OpenAiRequest;

constexpr const char* kEvents = "text/event-stream; charset=utf-8";

std::string_view token_bytes(const std::shared_ptr<const model::Tokenizer>& tokenizer, int32_t id) {
  return tokenizer ? tokenizer->bytes_of(id) : std::string_view();
}

// The index of a choice, from the id that its request has at the gateway: "REQUEST/INDEX".
std::string choice_of(const std::string& id) {
  return id.substr(id.rfind('/') + 1);
}

// How many log-probabilities of prompts a stream would send at once, before it shows whether its client reads.
size_t streamed_prompt_logprobs(const OpenAiRequest& request, const std::vector<comm::OpenAiAnswer::Prompt>& prompts) {
  size_t values = 0;
  if (!request.stream || request.prompts.empty() || !request.prompts.front().prompt_top_logprobs) return values;
  const auto of_token = static_cast<size_t>(*request.prompts.front().prompt_top_logprobs) + 1;
  for (const auto& prompt : prompts) values += prompt.token_ids.size() * of_token * static_cast<size_t>(request.n);
  return values;
}

}  // namespace

HttpApi::HttpApi(Setup setup, Outside outside)
    : setup_(std::move(setup)),
      outside_(std::move(outside)),
      started_(outside_.now()),
      openapi_(comm::openapi_document(LORIKEET_VERSION)) {}

void HttpApi::request(ExchangeId exchange, comm::HttpRequest request) {
  const auto found = setup_.routes->find(request);
  Exchange& known = exchanges_[exchange];
  known.request_id = request_id_of(request);
  known.headers = setup_.routes->common_headers(request, known.request_id);
  known.grant = setup_.routes->grant_of(request);
  if (!found) return refuse(exchange, comm::error_of(404, "there is nothing here"));
  const auto body = std::make_shared<const std::string>(std::move(request.body));
  switch (found->route) {
    case HttpRoute::completions:
      return generate(exchange, OpenAiRequest::Kind::completion, body);
    case HttpRoute::chat_completions:
      return generate(exchange, OpenAiRequest::Kind::chat, body);
    case HttpRoute::models:
      return models(exchange);
    case HttpRoute::model:
      return model(exchange, found->name);
    case HttpRoute::load_adapter:
    case HttpRoute::unload_adapter:
    case HttpRoute::adapters:
    case HttpRoute::pin_adapter:
    case HttpRoute::unpin_adapter:
    case HttpRoute::warm_adapter:
      return change_adapter(exchange, found->route, found->name, *body);
    case HttpRoute::tokenize:
      return tokenize(exchange, body);
    case HttpRoute::detokenize:
      return detokenize(exchange, body);
    case HttpRoute::health:
    case HttpRoute::ping:
      return health(exchange);
    case HttpRoute::version:
      return finish(exchange, 200, nlohmann::json{{"version", LORIKEET_VERSION}}.dump());
    case HttpRoute::load:
      return load(exchange);
    case HttpRoute::reset_prefix_cache:
      return reset_prefix_cache(exchange);
    case HttpRoute::metrics:
      return metrics(exchange);
    case HttpRoute::openapi:
      return finish(exchange, 200, openapi_);
    case HttpRoute::page:
      return finish(exchange, 200, std::string(live_page()),
                    {{"Content-Security-Policy", kLivePagePolicy}, {"X-Content-Type-Options", "nosniff"}},
                    "text/html; charset=utf-8");
  }
}

void HttpApi::gone(ExchangeId exchange) {
  const auto found = exchanges_.extract(exchange);
  if (found && found.mapped().answer) outside_.leave_gateway(client_of(exchange), true);
}

void HttpApi::serving(bool serves, std::string why) {
  serves_ = serves;
  why_not_ = std::move(why);
}

HttpApi::Exchange* HttpApi::find(ExchangeId exchange) {
  const auto found = exchanges_.find(exchange);
  return found == exchanges_.end() ? nullptr : &found->second;
}

void HttpApi::finish(ExchangeId exchange, int status, std::string body, comm::HttpHeaders more,
                     const char* content_type) {
  auto known = exchanges_.extract(exchange);
  if (!known) return;
  comm::HttpAnswer answer{status, std::move(known.mapped().headers), std::move(body)};
  if (!answer.body.empty()) answer.headers.emplace_back("Content-Type", content_type);
  for (auto& header : more) answer.headers.push_back(std::move(header));
  outside_.answer(exchange, std::move(answer));
}

void HttpApi::refuse(ExchangeId exchange, const OpenAiError& error) {
  comm::HttpHeaders more;
  if (error.status == 429 || error.status == 503) {
    more.emplace_back("Retry-After", std::to_string(std::max(1, error.retry_after_s)));
  }
  finish(exchange, error.status, comm::to_body(error), std::move(more));
}

// Names the base model, too, which a client with an unknown model may want.
OpenAiError HttpApi::error_of(const comm::Failure& failure) const {
  OpenAiError error = comm::error_of(failure);
  if (failure.code == "unknown_adapter")
    error.message += fmt::format("; the base model is \"{}\"", setup_.model_names.first);
  return error;
}

// For bodies that ask for no generation: their model must be one that is served all the same.
std::optional<OpenAiError> HttpApi::wrong_model(const std::optional<std::string>& name, const Grant& grant) const {
  const auto adapter = comm::adapter_of(name, setup_.model_names);
  if (!grant.may_use(adapter)) return error_of(comm::Failure{"", "forbidden", Grant::refusal_of(*adapter)});
  if (auto ok = setup_.validation->check_adapter(adapter); !ok) return error_of(failure_of("", ok.error()));
  return std::nullopt;
}

void HttpApi::now_or_elsewhere(size_t bytes, Work work) {
  if (bytes <= setup_.short_body_bytes) {
    work()();
  } else {
    outside_.elsewhere(std::move(work));
  }
}

// ---- completions

void HttpApi::generate(ExchangeId exchange, OpenAiRequest::Kind kind, std::shared_ptr<const std::string> body) {
  find(exchange)->generates = true;
  now_or_elsewhere(body->size(), [this, exchange, kind, body] {
    auto request = std::make_shared<comm::OpenAiRequestResult>(
        kind == OpenAiRequest::Kind::chat ? comm::parse_chat(*body) : comm::parse_completion(*body));
    auto prompts = std::make_shared<std::vector<comm::OpenAiAnswer::Prompt>>();
    if (*request) *prompts = shown_prompts(**request);
    return [this, exchange, request, prompts] {
      if (find(exchange) == nullptr) return;  // gone meanwhile
      *request ? generate(exchange, **request, std::move(*prompts)) : refuse(exchange, request->error());
    };
  });
}

// Empty where prompts are not shown, or are invalid, which the gateway then reports.
std::vector<comm::OpenAiAnswer::Prompt> HttpApi::shown_prompts(const OpenAiRequest& request) const {
  std::vector<comm::OpenAiAnswer::Prompt> prompts;
  if (!request.shows_prompts()) return prompts;
  const auto& tokenizer = setup_.validation->context().tokenizer;
  for (const comm::GenerateRequest& given : request.prompts) {
    auto ids = setup_.validation->prompt_of(given);
    if (!ids) return {};
    std::string text = given.prompt ? *given.prompt : tokenizer ? tokenizer->decode(*ids, false) : "";
    prompts.push_back({*std::move(ids), std::move(text)});
  }
  return prompts;
}

void HttpApi::generate(ExchangeId exchange, const OpenAiRequest& request,
                       std::vector<comm::OpenAiAnswer::Prompt> prompts) {
  Exchange& known = *find(exchange);
  const bool chat = request.kind == OpenAiRequest::Kind::chat;
  if (auto ok = setup_.validation->check_answers(request.choices(), static_cast<size_t>(request.n)); !ok) {
    return refuse(exchange, error_of(failure_of("", ok.error())));
  }
  if (const size_t values = streamed_prompt_logprobs(request, prompts); values > comm::kMaxStreamedPromptLogprobs) {
    return refuse(exchange,
                  comm::error_of(400, fmt::format("{} log-probabilities of prompts' tokens in a stream, at most {} are "
                                                  "allowed; ask for a whole answer",
                                                  values, comm::kMaxStreamedPromptLogprobs)));
  }
  known.stream = request.stream;
  known.n = request.n;
  if (setup_.passed_over && !request.unknown_fields.empty()) {
    setup_.passed_over(known.request_id, request.unknown_fields);
  }
  comm::OpenAiAnswer::Setup shown;
  shown.id = (chat ? "chatcmpl-" : "cmpl-") + known.request_id;
  shown.model = comm::answering_model(request.model, setup_.model_names.first);
  shown.created = outside_.now();
  if (const auto& tokenizer = setup_.validation->context().tokenizer) {
    shown.token_bytes = [tokenizer](int32_t id) { return token_bytes(tokenizer, id); };
  }
  shown.prompts = std::move(prompts);
  known.answer.emplace(request, std::move(shown));
  const auto adapter = comm::adapter_of(request.model, setup_.model_names);
  for (size_t i = 0; i < request.choices(); ++i) {
    comm::GenerateRequest choice = request.choice(i);
    choice.id = known.request_id + "/" + choice.id;  // so that the log tells whose it is
    choice.adapter = adapter;
    outside_.ask_gateway(client_of(exchange), known.grant, std::move(choice), i > 0);
  }
}

void HttpApi::said(uint64_t client, comm::ServerMessage message) {
  const ExchangeId exchange = client & ~kHttpClients;
  Exchange* known = find(exchange);
  if (known == nullptr) return;
  if (known->wants_metrics) {
    if (const auto* status = std::get_if<comm::StatusReply>(&message)) return status_came(exchange, status->json);
    if (const auto* failure = std::get_if<comm::Failure>(&message)) return refuse(exchange, comm::error_of(*failure));
  }
  if (known->of_adapters) return adapters_said(exchange, *known->of_adapters, message);
  if (!known->answer) return;
  if (auto* delta = std::get_if<comm::Delta>(&message)) {
    delta->id = choice_of(delta->id);
    tokens_came(exchange, *known, known->answer->add(*delta));
  } else if (auto* done = std::get_if<comm::Done>(&message)) {
    done->id = choice_of(done->id);
    tokens_came(exchange, *known, known->answer->finish(*done));
  } else if (const auto* failure = std::get_if<comm::Failure>(&message)) {
    failed(exchange, *known, *failure);
  }
}

// The head of a stream goes out with the first event, so that a request that is refused before it gets its own status.
void HttpApi::tokens_came(ExchangeId exchange, Exchange& known, std::string events) {
  if (!known.stream) {
    if (!known.answer->ended()) return;
    note_answer(known);
    return finish(exchange, 200, known.answer->body());
  }
  if (!std::exchange(known.begun, true)) {
    comm::HttpAnswer head{200, known.headers, ""};
    head.headers.emplace_back("Content-Type", kEvents);
    head.headers.emplace_back("Cache-Control", "no-cache");
    outside_.begin(exchange, std::move(head));
  }
  if (!events.empty()) outside_.write(exchange, std::move(events));
  if (!known.answer->ended()) return;
  note_answer(known);
  outside_.end(exchange);
  exchanges_.erase(exchange);
}

void HttpApi::note_answer(const Exchange& known) const {
  if (!setup_.answered) return;
  for (const int32_t longest : known.answer->longest_choices()) setup_.answered(known.n, longest);
}

// One choice that fails takes the others with it: an answer of OpenAI's has no place for half of it.
void HttpApi::failed(ExchangeId exchange, Exchange& known, const comm::Failure& failure) {
  outside_.leave_gateway(client_of(exchange), false);
  if (!known.begun) return refuse(exchange, error_of(failure));
  outside_.write(exchange, comm::to_event(error_of(failure)) + "data: [DONE]\n\n");
  outside_.end(exchange);
  exchanges_.erase(exchange);
}

// ---- the other routes

void HttpApi::models(ExchangeId exchange) {
  const std::string& base = setup_.model_names.first;
  std::vector<comm::ServedModel> list = {{base, setup_.model_root, ""}};
  for (const std::string& name : setup_.model_names.more) list.push_back({name, setup_.model_root, ""});
  const Grant& grant = *find(exchange)->grant;
  for (auto& [name, directory] : setup_.validation->context().adapters.list()) {
    if (grant.may_use(name)) list.push_back({std::move(name), std::move(directory), base});
  }
  finish(exchange, 200, comm::model_list(list, started_, setup_.validation->context().max_model_len));
}

void HttpApi::model(ExchangeId exchange, const std::string& name) {
  const int32_t length = setup_.validation->context().max_model_len;
  const auto adapter = comm::adapter_of(name, setup_.model_names);
  if (!adapter) {
    return finish(exchange, 200, comm::model_card({name, setup_.model_root, ""}, started_, length));
  }
  auto directory = setup_.validation->context().adapters.directory_of(*adapter);
  if (directory && find(exchange)->grant->may_use(*adapter)) {
    return finish(exchange, 200,
                  comm::model_card({*adapter, *std::move(directory), setup_.model_names.first}, started_, length));
  }
  refuse(exchange,
         error_of(comm::Failure{"", "unknown_adapter", fmt::format("there is no model \"{}\"", name.substr(0, 200))}));
}

// ---- adapters

void HttpApi::change_adapter(ExchangeId exchange, HttpRoute route, const std::string& name, const std::string& body) {
  if (body.size() > setup_.short_body_bytes) {
    return refuse(exchange, comm::error_of(413, fmt::format("a body of {} bytes where {} are allowed", body.size(),
                                                            setup_.short_body_bytes)));
  }
  const auto parsed = [&]() -> tl::expected<comm::AdapterRequest, OpenAiError> {
    switch (route) {
      case HttpRoute::load_adapter:
        return comm::parse_load_adapter(body);
      case HttpRoute::unload_adapter:
        return comm::parse_unload_adapter(body);
      case HttpRoute::pin_adapter:
        return comm::parse_adapter_action("pin", name, body);
      case HttpRoute::unpin_adapter:
        return comm::parse_adapter_action("unpin", name, body);
      case HttpRoute::warm_adapter:
        return comm::parse_adapter_action("warm", name, body);
      default:
        return comm::AdapterRequest{"", "list", std::nullopt, std::nullopt, false};
    }
  };
  auto request = parsed();
  if (!request) return refuse(exchange, request.error());
  Exchange& known = *find(exchange);
  known.of_adapters = route;
  request->id = known.request_id;
  outside_.ask_gateway(client_of(exchange), known.grant, *std::move(request), false);
}

// As vLLM's routes answer: with a sentence, where it is its routes.
void HttpApi::adapters_said(ExchangeId exchange, HttpRoute route, const comm::ServerMessage& message) {
  if (const auto* failure = std::get_if<comm::Failure>(&message)) {
    return refuse(exchange, comm::adapter_error_of(*failure, route == HttpRoute::load_adapter));
  }
  const auto* reply = std::get_if<comm::AdapterReply>(&message);
  if (reply == nullptr) return;
  if (reply->json) return finish(exchange, 200, *reply->json);
  if (route == HttpRoute::load_adapter || route == HttpRoute::unload_adapter) {
    return finish(exchange, 200, reply->message, {}, "text/plain; charset=utf-8");
  }
  finish(exchange, 200, comm::adapter_message(reply->message));
}

void HttpApi::tokenize(ExchangeId exchange, std::shared_ptr<const std::string> body) {
  now_or_elsewhere(body->size(), [this, exchange, body, grant = find(exchange)->grant] {
    using Result = tl::expected<std::string, OpenAiError>;
    const auto tokenized = [&](const comm::TokenizeRequest& request) -> Result {
      if (auto error = wrong_model(request.model, *grant)) return tl::unexpected(*std::move(error));
      auto ids = setup_.validation->prompt_of(request.text);
      if (!ids) return tl::unexpected(error_of(failure_of("", ids.error())));
      const auto bytes = [this](int32_t id) { return token_bytes(setup_.validation->context().tokenizer, id); };
      return comm::tokenize_answer(*ids, setup_.validation->context().max_model_len, request.with_texts, bytes);
    };
    auto answer = std::make_shared<Result>(comm::parse_tokenize(*body).and_then(tokenized));
    return [this, exchange, answer] { *answer ? finish(exchange, 200, **answer) : refuse(exchange, answer->error()); };
  });
}

void HttpApi::detokenize(ExchangeId exchange, std::shared_ptr<const std::string> body) {
  now_or_elsewhere(body->size(), [this, exchange, body, grant = find(exchange)->grant] {
    using Result = tl::expected<std::string, OpenAiError>;
    const auto text = [&](const comm::DetokenizeRequest& request) -> Result {
      if (auto error = wrong_model(request.model, *grant)) return tl::unexpected(*std::move(error));
      const auto& tokenizer = setup_.validation->context().tokenizer;
      if (!tokenizer) return tl::unexpected(comm::error_of(400, "the checkpoint has no tokenizer"));
      if (auto ok = setup_.validation->check_tokens(request.tokens); !ok) {
        return tl::unexpected(error_of(failure_of("", ok.error())));
      }
      return comm::detokenize_answer(tokenizer->decode(request.tokens, false));
    };
    auto answer = std::make_shared<Result>(comm::parse_detokenize(*body).and_then(text));
    return [this, exchange, answer] { *answer ? finish(exchange, 200, **answer) : refuse(exchange, answer->error()); };
  });
}

void HttpApi::health(ExchangeId exchange) {
  serves_ ? finish(exchange, 200, "") : refuse(exchange, comm::error_of(503, why_not_));
}

// The server's load as vLLM counts it: exchanges that generate and have no complete answer.
void HttpApi::load(ExchangeId exchange) {
  const auto generates = [](const auto& entry) { return entry.second.generates; };
  const auto count = std::count_if(exchanges_.begin(), exchanges_.end(), generates);
  finish(exchange, 200, nlohmann::json{{"server_load", count}}.dump());
}

void HttpApi::reset_prefix_cache(ExchangeId exchange) {
  outside_.reset_prefix_cache([this, exchange](bool done) {
    done ? finish(exchange, 200, nlohmann::json{{"success", true}}.dump())
         : refuse(exchange, comm::error_of(500, "the scheduler does not answer"));
  });
}

void HttpApi::metrics(ExchangeId exchange) {
  Exchange& known = *find(exchange);
  known.wants_metrics = true;
  outside_.ask_gateway(client_of(exchange), known.grant, comm::StatusRequest{"metrics", true}, false);
}

void HttpApi::status_came(ExchangeId exchange, const std::string& json) {
  const auto status = comm::from_json<ServerStatus>(json, comm::kStatusLimits);
  if (!status) return refuse(exchange, comm::error_of(500, status.error().message));
  finish(exchange, 200, setup_.metrics_text(*status), {}, kMetricsContentType);
}

}  // namespace lorikeet::actors
