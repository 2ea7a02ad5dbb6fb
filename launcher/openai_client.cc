#include "launcher/openai_client.h"

#include <fmt/format.h>

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "launcher/event_stream.h"

namespace lorikeet::launcher {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kModelsPatience{10};

struct Target {
  std::string host, port, prefix;  // prefix: before /v1
  bool tls = false;
};

Result<Target> read_url(std::string url) {
  constexpr std::string_view kPlain = "http://", kTls = "https://";
  Target target;
  target.tls = url.rfind(kTls, 0) == 0;
  if (!target.tls && url.rfind(kPlain, 0) != 0) return fail("{}: give http://HOST:PORT or https://HOST:PORT", url);
  url.erase(0, (target.tls ? kTls : kPlain).size());
  const size_t slash = url.find('/');
  std::string authority = url.substr(0, slash);
  if (slash != std::string::npos) target.prefix = url.substr(slash);
  while (!target.prefix.empty() && target.prefix.back() == '/') target.prefix.pop_back();
  if (target.prefix.size() >= 3 && target.prefix.compare(target.prefix.size() - 3, 3, "/v1") == 0) {
    target.prefix.resize(target.prefix.size() - 3);
  }
  const size_t colon = authority.rfind(':');
  const bool has_port = colon != std::string::npos && authority.find(']', colon) == std::string::npos;
  target.host = authority.substr(0, has_port ? colon : std::string::npos);
  target.port = has_port ? authority.substr(colon + 1) : target.tls ? "443" : "80";
  if (target.host.size() > 2 && target.host.front() == '[') target.host = target.host.substr(1, target.host.size() - 2);
  if (target.host.empty() || target.port.empty()) return fail("{}: give http://HOST:PORT or https://HOST:PORT", url);
  return target;
}

std::string error_text(int status, const std::string& body) {
  if (status == 0) return body;
  const json answer = json::parse(body, nullptr, false);
  for (const char* key : {"error", "detail", "message"}) {
    if (!answer.is_object() || !answer.contains(key)) continue;
    const json& error = answer[key];
    if (error.is_string()) return error.get<std::string>();
    if (error.is_object() && error.contains("message") && error["message"].is_string()) {
      return error["message"].get<std::string>();
    }
  }
  return fmt::format("HTTP status {}", status);
}

class Client final : public OpenAiClient {
 public:
  Client(Target target, std::string api_key, std::string model, std::unique_ptr<comm::HttpClient> http)
      : target_(std::move(target)),
        api_key_(std::move(api_key)),
        base_model_(std::move(model)),
        http_(std::move(http)) {}

  const std::vector<std::string>& models() const override { return models_; }
  const std::string& base_model() const override { return base_model_; }

  bool await_greeting(std::chrono::milliseconds) override { return true; }  // connect() has had an answer

  Result<void> send(const comm::ClientMessage& message) override {
    if (const auto* cancel = std::get_if<comm::Cancel>(&message)) {
      const auto found = running_.find(cancel->id);
      if (found == running_.end()) return {};
      http_->drop(found->second.exchange);
      found->second.done.finish_reason = "abort";
      messages_.push_back(std::move(found->second.done));
      running_.erase(found);
      return {};
    }
    const auto* request = std::get_if<comm::GenerateRequest>(&message);
    if (request == nullptr) return fail("a server's status is asked for over ZeroMQ");
    OpenAiCall call = openai_call(*request, base_model_);
    Running& running = running_[request->id];
    running.done.id = request->id;
    running.exchange =
        http_->start(make_request("POST", call.path, std::move(call.body)),
                     {[this, id = request->id](std::string_view piece) { take(id, piece); },
                      [this, id = request->id](int status, const std::string& text) { end(id, status, text); }});
    return {};
  }

  std::optional<comm::ServerMessage> receive(std::chrono::milliseconds timeout) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    do {
      http_->run_once(deadline);
      if (running_.empty() && messages_.empty()) std::this_thread::sleep_until(deadline);  // nothing can come
    } while (messages_.empty() && std::chrono::steady_clock::now() < deadline);
    if (messages_.empty()) return std::nullopt;
    comm::ServerMessage message = std::move(messages_.front());
    messages_.pop_front();
    return message;
  }

  // An answer that is none, as people at the command line can mend it.
  std::string refusal_of(int status, const std::string& text) const {
    if (status != 401) return error_text(status, text);
    if (api_key_.empty()) return "a key is needed: give --api-key, or LORIKEET_API_KEY in the environment";
    return fmt::format("it does not take the key of --api-key or LORIKEET_API_KEY: {}", error_text(status, text));
  }

  Result<void> ask_for_models() {
    std::string body, error;
    bool ended = false;
    const auto exchange =
        http_->start(make_request("GET", "/v1/models", ""), {[&](std::string_view piece) { body += piece; },
                                                             [&](int status, const std::string& text) {
                                                               ended = true;
                                                               if (status != 200) error = refusal_of(status, text);
                                                             }});
    const auto deadline = std::chrono::steady_clock::now() + kModelsPatience;
    while (!ended && std::chrono::steady_clock::now() < deadline) http_->run_once(deadline);
    if (!ended) {
      http_->drop(exchange);
      error = "it does not answer";
    }
    const std::string where =
        fmt::format("{}://{}:{}{}", target_.tls ? "https" : "http", target_.host, target_.port, target_.prefix);
    if (!error.empty()) return fail("{}: {}", where, error);
    const json answer = json::parse(body, nullptr, false);
    if (answer.is_object() && answer.contains("data") && answer["data"].is_array()) {
      for (const json& model : answer["data"]) {
        if (model.is_object() && model.contains("id") && model["id"].is_string()) {
          models_.push_back(model["id"].get<std::string>());
        }
      }
    }
    if (models_.empty()) return fail("{}: /v1/models names no model", where);
    if (base_model_.empty()) base_model_ = models_.front();
    return {};
  }

 private:
  struct Running {
    comm::HttpClient::ExchangeId exchange = 0;
    EventStream events;
    comm::Done done;
    std::string error;
  };

  comm::HttpRequest make_request(const std::string& method, const std::string& path, std::string body) const {
    comm::HttpRequest request;
    request.method = method;
    request.target = target_.prefix + path;
    request.headers.emplace_back("User-Agent", "lorikeet");
    if (!api_key_.empty()) request.headers.emplace_back("Authorization", "Bearer " + api_key_);
    if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
    request.body = std::move(body);
    return request;
  }

  void take(const std::string& id, std::string_view piece) {
    const auto found = running_.find(id);
    if (found == running_.end()) return;
    Running& running = found->second;
    running.events.add(piece);
    while (const auto data = running.events.next()) {
      OpenAiChunk chunk = read_openai_chunk(*data);
      if (!chunk.error.empty()) running.error = std::move(chunk.error);
      if (!chunk.finish_reason.empty()) running.done.finish_reason = std::move(chunk.finish_reason);
      if (chunk.has_usage) running.done.usage = chunk.usage;
      if (!chunk.counts) continue;
      comm::Delta delta;
      delta.id = id;
      delta.text = std::move(chunk.text);
      if (!chunk.reasoning.empty()) delta.reasoning = std::move(chunk.reasoning);
      delta.token_ids = {-1};
      messages_.push_back(std::move(delta));
    }
    if (running.events.too_long()) running.error = "the server sends an event without an end";
  }

  void end(const std::string& id, int status, const std::string& text) {
    const auto found = running_.find(id);
    if (found == running_.end()) return;
    Running& running = found->second;
    if (status != 200) {
      messages_.push_back(
          comm::Failure{id, status == 0 ? "server_lost" : fmt::format("http_{}", status), error_text(status, text)});
    } else if (!running.error.empty()) {
      messages_.push_back(comm::Failure{id, "internal", running.error});
    } else {
      messages_.push_back(std::move(running.done));
    }
    running_.erase(found);
  }

  const Target target_;
  const std::string api_key_;
  std::string base_model_;
  std::vector<std::string> models_;
  const std::unique_ptr<comm::HttpClient> http_;
  std::map<std::string, Running> running_;
  std::deque<comm::ServerMessage> messages_;
};

}  // namespace

Result<void> check_server_url(const std::string& url) {
  if (const auto target = read_url(url); !target) return tl::unexpected(target.error());
  return {};
}

Result<std::unique_ptr<OpenAiClient>> OpenAiClient::connect(const OpenAiServer& server) {
  auto target = read_url(server.url);
  if (!target) return tl::unexpected(target.error());
  std::optional<comm::ClientTls> tls;
  if (target->tls) tls = server.tls;
  auto http = comm::HttpClient::make(target->host, target->port, tls);
  if (!http) return tl::unexpected(http.error());
  auto client = std::make_unique<Client>(*std::move(target), server.api_key, server.model, *std::move(http));
  if (auto ok = client->ask_for_models(); !ok) return tl::unexpected(ok.error());
  return client;
}

OpenAiCall openai_call(const comm::GenerateRequest& request, const std::string& base_model) {
  json body = {
      {"model", request.adapter.value_or(base_model)}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  OpenAiCall call;
  if (request.messages) {
    call.path = "/v1/chat/completions";
    body["messages"] = json::array();
    for (const comm::Message& message : *request.messages) {
      body["messages"].push_back({{"role", message.role}, {"content", message.content}});
    }
  } else {
    call.path = "/v1/completions";
    body["prompt"] = request.prompt_token_ids ? json(*request.prompt_token_ids) : json(request.prompt.value_or(""));
  }
  const auto set = [&body](const char* name, const auto& value) {
    if (value) body[name] = *value;
  };
  set("max_tokens", request.max_tokens);
  set("temperature", request.temperature);
  set("top_p", request.top_p);
  set("top_k", request.top_k);
  set("min_p", request.min_p);
  set("repetition_penalty", request.repetition_penalty);
  set("presence_penalty", request.presence_penalty);
  set("frequency_penalty", request.frequency_penalty);
  set("seed", request.seed);
  if (!request.stop.empty()) body["stop"] = request.stop;
  if (request.ignore_eos) body["ignore_eos"] = true;
  call.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  return call;
}

OpenAiChunk read_openai_chunk(const std::string& data) {
  OpenAiChunk chunk;
  if (data == "[DONE]") return chunk;
  const json event = json::parse(data, nullptr, false);
  if (!event.is_object()) {
    chunk.error = "the server sends an event that is no JSON object";
    return chunk;
  }
  if (event.contains("error") && !event["error"].is_null()) {
    chunk.error = error_text(200, data);
    return chunk;
  }
  const auto usage = event.find("usage");
  if (usage != event.end() && usage->is_object()) {
    const auto count = [&](const char* name) {
      const auto found = usage->find(name);
      return found != usage->end() && found->is_number_integer() ? found->get<int32_t>() : 0;
    };
    chunk.usage.prompt_tokens = count("prompt_tokens");
    chunk.usage.completion_tokens = count("completion_tokens");
    chunk.usage.total_tokens = count("total_tokens");
    chunk.has_usage = true;
  }
  const auto choices = event.find("choices");
  if (choices == event.end() || !choices->is_array() || choices->empty() || !choices->front().is_object()) return chunk;
  const json& choice = choices->front();
  const auto text_of = [](const json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  chunk.finish_reason = text_of(choice, "finish_reason");
  const auto delta = choice.find("delta");
  const bool of_chat = delta != choice.end() && delta->is_object();
  chunk.text = of_chat ? text_of(*delta, "content") : text_of(choice, "text");
  for (const char* name : {"reasoning", "reasoning_content"}) {
    if (of_chat && chunk.reasoning.empty()) chunk.reasoning = text_of(*delta, name);
  }
  // The first piece of a chat says its role alone, the last its end alone; text that waits for its end is of a token.
  const bool role_alone = of_chat && delta->contains("role") && chunk.text.empty() && chunk.reasoning.empty();
  chunk.counts = !chunk.text.empty() || (!role_alone && chunk.finish_reason.empty());
  return chunk;
}

}  // namespace lorikeet::launcher
