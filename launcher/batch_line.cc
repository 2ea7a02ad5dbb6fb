#include "launcher/batch_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "comm/client/limits.h"
#include "comm/client/request_json.h"
#include "comm/openai/models.h"
#include "comm/openai/openai_answer.h"
#include "comm/openai/openai_request.h"

namespace lorikeet::launcher {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCustom = "custom_id ";  // in front of a key of OpenAI's form, whose ids are apart from ours

class OwnLine final : public BatchLine {
 public:
  explicit OwnLine(comm::RequestLine line)
      : line_(std::move(line)),
        n_(answers_to(line_.request)),
        results_(n_, comm::ResultLine(line_)),
        finished_(n_),
        running_(n_) {}

  std::string key() const override {
    return line_.integer_id ? line_.request.id : nlohmann::json(line_.request.id).dump();
  }
  // One for each answer, from seeds one after the other, as the server would draw them for n.
  std::vector<comm::GenerateRequest> requests() const override {
    std::vector<comm::GenerateRequest> requests(n_, line_.request);
    for (size_t i = 0; i < n_; ++i) {
      if (n_ > 1) requests[i].n = std::nullopt;
      if (requests[i].seed) *requests[i].seed += i;
      requests[i].early_prompt_logprobs = false;  // the result has them in any case
    }
    return requests;
  }
  void add(size_t index, const comm::Delta& delta) override { results_.at(index).add(delta); }

  std::optional<std::string> finish(size_t index, const comm::Done& done) override {
    std::string line = results_.at(index).finish(done);
    if (n_ == 1) return line;
    if (!std::exchange(finished_.at(index), std::move(line)).empty() || --running_ > 0) return std::nullopt;
    Json choices = Json::array();
    for (size_t i = 0; i < n_; ++i) {
      Json& choice = choices.emplace_back(Json{{"index", i}});
      const Json whole = Json::parse(finished_[i]);
      for (const auto& [key, value] : whole.items()) {
        if (key != "id" && key != "error") choice[key] = value;
      }
    }
    const Json id = line_.integer_id ? Json::parse(line_.request.id) : Json(line_.request.id);
    const Json all = {{"id", id}, {"choices", std::move(choices)}, {"error", nullptr}};
    return all.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  std::string finish(const comm::Failure& failure) const override { return results_.front().finish(failure); }
  void restart() override {
    for (comm::ResultLine& result : results_) result.restart();
    finished_.assign(n_, "");
    running_ = n_;
  }

 private:
  // A wrong n is the server's to refuse.
  static size_t answers_to(const comm::GenerateRequest& request) {
    const int32_t n = request.n.value_or(1);
    return n >= 1 && n <= comm::kMaxChoices ? static_cast<size_t>(n) : 1;
  }

  const comm::RequestLine line_;
  const size_t n_;  // answers
  std::vector<comm::ResultLine> results_;
  std::vector<std::string> finished_;  // lines of answers that have ended, where there are several
  size_t running_;
};

class OpenAiLine final : public BatchLine {
 public:
  OpenAiLine(std::string custom_id, int64_t number, const BatchModel& model, comm::OpenAiRequestResult request)
      : custom_id_(std::move(custom_id)), number_(number), model_(model), request_(std::move(request)) {
    if (request_) {
      request_->stream = false;  // a file has no place for one
      restart();
    }
  }

  std::string key() const override { return kCustom + custom_id_; }

  std::vector<comm::GenerateRequest> requests() const override {
    std::vector<comm::GenerateRequest> requests;
    if (!request_) return requests;
    const auto adapter = comm::adapter_of(request_->model, model_.names);
    for (size_t i = 0; i < request_->choices(); ++i) {
      comm::GenerateRequest& request = requests.emplace_back(request_->choice(i));
      request.adapter = adapter;
      request.return_token_ids = request_->shows_prompts();
    }
    return requests;
  }

  std::optional<std::string> refusal() const override {
    if (request_) return std::nullopt;
    return result(request_.error().status, comm::to_body(request_.error()));
  }

  void add(size_t index, const comm::Delta& delta) override {
    comm::Delta own = delta;
    own.id = std::to_string(index);
    answer_->add(own);
  }

  std::optional<std::string> finish(size_t index, const comm::Done& done) override {
    comm::Done own = done;
    own.id = std::to_string(index);
    if (request_->shows_prompts()) {
      const size_t prompt = index / static_cast<size_t>(request_->n);
      const auto& text = request_->prompts[prompt].prompt;
      answer_->show_prompt(prompt, {done.prompt_token_ids, text ? *text : model_.decode(done.prompt_token_ids)});
    }
    answer_->finish(own);
    if (!answer_->ended()) return std::nullopt;
    return result(200, answer_->body());
  }

  std::string finish(const comm::Failure& failure) const override {
    const comm::OpenAiError error = comm::error_of(failure);
    return result(error.status, comm::to_body(error));
  }

  void restart() override {
    const bool chat = request_->kind == comm::OpenAiRequest::Kind::chat;
    answer_.emplace(*request_, comm::OpenAiAnswer::Setup{fmt::format("{}-{}", chat ? "chatcmpl" : "cmpl", number_),
                                                         comm::answering_model(request_->model, model_.names.first),
                                                         model_.now(),
                                                         model_.token_bytes,
                                                         {}});
  }

 private:
  std::string result(int status, const std::string& body) const {
    const Json response = {
        {"status_code", status}, {"request_id", fmt::format("req_{}", number_)}, {"body", Json::parse(body)}};
    const Json line = {{"id", fmt::format("batch_req_{}", number_)},
                       {"custom_id", custom_id_},
                       {"response", response},
                       {"error", nullptr}};
    return line.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  const std::string custom_id_;
  const int64_t number_;
  const BatchModel& model_;
  comm::OpenAiRequestResult request_;
  std::optional<comm::OpenAiAnswer> answer_;
};

// In the order in which it is written, which a chat template shows of tools.
comm::OpenAiRequestResult parse_body(const Json& line) {
  const auto refused = [](const char* param, std::string sentence) {
    return tl::unexpected(comm::OpenAiError{400, std::move(sentence), param, "invalid_request"});
  };
  const auto method = line.value("method", Json("POST"));
  if (method != "POST") return refused("method", "method must be POST");
  const auto body = line.find("body");
  if (body == line.end() || !body->is_object()) return refused("body", "body must be an object");
  const auto url = line.value("url", Json());
  if (url == "/v1/chat/completions") return comm::parse_chat(body->dump());
  if (url == "/v1/completions") return comm::parse_completion(body->dump());
  return refused("url", "url must be /v1/chat/completions or /v1/completions");
}

// A line of our own form without what people write from habit with OpenAI's: `model`, which is an adapter's name or the
// base's, and `stream`, for which a file has no place. What contradicts itself stays, and is refused as unknown.
std::string without_habits(std::string_view text, const BatchModel& model) {
  Json line = Json::parse(text);
  if (const auto stream = line.find("stream"); stream != line.end() && stream->is_boolean()) line.erase(stream);
  const auto asked = line.find("model");
  if (asked == line.end() || !asked->is_string()) return line.dump();
  const auto adapter = comm::adapter_of(asked->get<std::string>(), model.names);
  const auto given = line.find("adapter");
  const bool agrees = given == line.end() || given->is_null() || !adapter || *given == *adapter;
  if (!agrees) return line.dump();
  line.erase("model");
  if (adapter) line["adapter"] = *adapter;
  return line.dump();
}

}  // namespace

Result<std::unique_ptr<BatchLine>> BatchLine::parse(std::string_view text, int64_t number, const BatchModel& model) {
  const auto value = comm::parse_bounded_json(text, comm::kBodyLimits);
  if (value && value->is_object() && (value->contains("custom_id") || value->contains("body"))) {
    const auto id = value->find("custom_id");
    if (id == value->end() || !id->is_string()) return fail("custom_id must be a string");
    return std::make_unique<OpenAiLine>(id->get<std::string>(), number, model, parse_body(Json::parse(text)));
  }
  const bool has_habits = value && value->is_object() && (value->contains("model") || value->contains("stream"));
  auto own = comm::parse_request(has_habits ? without_habits(text, model) : std::string(text));
  if (!own) return tl::unexpected(own.error());
  return std::make_unique<OwnLine>(*std::move(own));
}

std::optional<BatchResult> final_result(std::string_view line) {
  const auto value = nlohmann::json::parse(line, nullptr, false);
  if (!value.is_object() || !value.contains("id") || !value.contains("error")) return std::nullopt;
  const auto code_is_final = [](const nlohmann::json& error) {
    return error.is_object() && error.contains("code") && error["code"].is_string() &&
           !is_of_the_server(error["code"].get_ref<const std::string&>());
  };
  if (const auto custom = value.find("custom_id"); custom != value.end()) {
    const auto response = value.value("response", nlohmann::json::object());
    if (!custom->is_string() || !response.is_object()) return std::nullopt;
    const auto body = response.value("body", nlohmann::json());
    const bool failed = body.is_object() && body.contains("error");
    if (!response.contains("body") || (failed && !code_is_final(body["error"]))) return std::nullopt;
    return BatchResult{kCustom + custom->get<std::string>(), std::nullopt};
  }
  if (!value["error"].is_null() && !code_is_final(value["error"])) return std::nullopt;
  if (const auto number = value.find("line"); number != value.end() && number->is_number_integer()) {
    return BatchResult{"", number->get<int64_t>()};
  }
  return BatchResult{value["id"].dump(), std::nullopt};
}

bool is_of_the_server(std::string_view code) {
  constexpr std::array<std::string_view, 5> kCodes = {"rank_lost", "server_lost", "shutting_down", "queue_full",
                                                      "internal"};
  return std::find(kCodes.begin(), kCodes.end(), code) != kCodes.end();
}

}  // namespace lorikeet::launcher
