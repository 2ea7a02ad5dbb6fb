#include "launcher/batch_runner.h"

#include <charconv>
#include <chrono>
#include <functional>

#include "comm/json_codec.h"

namespace lorikeet::launcher {
namespace {

using Json = nlohmann::ordered_json;

Json error_result(const nlohmann::json& id, const std::string& code, const std::string& message) {
  return {{"id", id},
          {"text", nullptr},
          {"token_ids", nullptr},
          {"finish_reason", nullptr},
          {"logprobs", nullptr},
          {"prompt_logprobs", nullptr},
          {"usage", nullptr},
          {"error", {{"code", code}, {"message", message}}}};
}

Json usage_json(const comm::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.total_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

// The line number that a request was sent under; nullopt for what no request of ours is called.
std::optional<int64_t> line_of(const std::string& id) {
  int64_t line = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), line);
  if (error != std::errc() || end != id.data() + id.size()) return std::nullopt;
  return line;
}

}  // namespace

BatchRunner::BatchRunner(comm::ZmqClient& client, LineReader& reader, LineWriter& writer, size_t window)
    : client_(client), reader_(reader), writer_(writer), window_(window) {}

Result<BatchRunner::Summary> BatchRunner::run(const std::function<bool()>& give_up) {
  bool more = true;
  while (more || !running_.empty()) {
    // A slow first request must not make the results behind it pile up without limit.
    while (more && running_.size() < window_ && finished_.size() < 16 * window_) {
      const auto line = reader_.next();
      more = line.has_value();
      if (!line) break;
      if (auto ok = take_line(*line); !ok) return tl::unexpected(ok.error());
    }
    if (running_.empty()) continue;
    if (auto message = client_.receive(std::chrono::milliseconds(200))) {
      if (auto ok = handle(*message); !ok) return tl::unexpected(ok.error());
    } else if (give_up()) {
      return fail("the server has stopped with {} requests unanswered", running_.size());
    }
  }
  if (reader_.failed()) return fail("the input could not be read to its end");
  return summary_;
}

Result<void> BatchRunner::take_line(const std::string& line) {
  const int64_t number = next_line_++;
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  if (json.is_discarded()) {
    return finish(number, {{"id", nullptr},
                           {"line", reader_.line_number()},
                           {"error", {{"code", "malformed"}, {"message", "the line is not JSON"}}}});
  }
  nlohmann::json id;
  if (json.is_object() && json.contains("id") && (json["id"].is_string() || json["id"].is_number_integer()))
    id = json["id"];
  auto request = comm::request_from_json(json);
  if (!request) return finish(number, error_result(id, "invalid_request", request.error().message));
  request->id = std::to_string(number);
  Running& running = running_[number];
  running.id = std::move(id);
  running.request = *std::move(request);
  return send(running);
}

Result<void> BatchRunner::send(Running& running) {
  ++running.attempts;
  running.text.clear();
  running.token_ids.clear();
  running.logprobs.clear();
  return client_.send(running.request);
}

Result<void> BatchRunner::handle(const comm::ServerMessage& message) {
  const auto find = [&](const std::string& id) {
    const auto line = line_of(id);
    return line ? running_.find(*line) : running_.end();
  };
  if (const auto* delta = std::get_if<comm::Delta>(&message)) {
    const auto it = find(delta->id);
    if (it == running_.end()) return {};
    Running& r = it->second;
    r.text += delta->text;
    r.token_ids.insert(r.token_ids.end(), delta->token_ids.begin(), delta->token_ids.end());
    r.logprobs.insert(r.logprobs.end(), delta->logprobs.begin(), delta->logprobs.end());
  } else if (const auto* done = std::get_if<comm::Done>(&message)) {
    const auto it = find(done->id);
    if (it == running_.end()) return {};
    const Running& r = it->second;
    Json result = {{"id", r.id}, {"text", r.text}, {"token_ids", r.token_ids}, {"finish_reason", done->finish_reason}};
    result["logprobs"] = r.request.logprobs ? Json(r.logprobs) : Json();
    result["prompt_logprobs"] = nullptr;
    if (r.request.prompt_logprobs) {
      result["prompt_logprobs"] = Json::array();
      for (const auto& value : done->prompt_logprobs)
        result["prompt_logprobs"].push_back(value ? Json(*value) : Json());
    }
    result["seed"] = done->seed;
    result["usage"] = usage_json(done->usage);
    result["error"] = nullptr;
    summary_.prompt_tokens += done->usage.prompt_tokens;
    summary_.completion_tokens += done->usage.completion_tokens;
    const int64_t line = it->first;
    running_.erase(it);
    return finish(line, result);
  } else if (const auto* failure = std::get_if<comm::Failure>(&message)) {
    if (failure->id.empty()) {
      return failure->code == "server_lost" ? resend_all() : Result<void>(fail("{}", failure->message));
    }
    const auto it = find(failure->id);
    if (it == running_.end()) return {};
    const int64_t line = it->first;
    const Json result = error_result(it->second.id, failure->code, failure->message);
    running_.erase(it);
    return finish(line, result);
  }
  return {};
}

Result<void> BatchRunner::resend_all() {
  for (auto it = running_.begin(); it != running_.end();) {
    const auto current = it++;
    if (current->second.attempts < kMaxAttempts) {
      if (auto ok = send(current->second); !ok) return ok;
      continue;
    }
    const int64_t line = current->first;
    const Json result =
        error_result(current->second.id, "server_lost", "the server was lost while it worked on the request");
    running_.erase(current);
    if (auto ok = finish(line, result); !ok) return ok;
  }
  return {};
}

Result<void> BatchRunner::finish(int64_t line, const Json& result) {
  ++summary_.lines;
  if (!result["error"].is_null()) ++summary_.failed;
  // A generated text is valid UTF-8, but an error may quote what a line held.
  finished_.emplace(line, result.dump(-1, ' ', false, Json::error_handler_t::replace));
  while (!finished_.empty() && finished_.begin()->first == next_result_) {
    if (auto ok = writer_.write(finished_.begin()->second); !ok) return ok;
    finished_.erase(finished_.begin());
    ++next_result_;
  }
  return {};
}

}  // namespace lorikeet::launcher
