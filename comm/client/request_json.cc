#include "comm/client/request_json.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "comm/client/json_order.h"
#include "comm/client/limits.h"
#include "comm/codec/json_codec.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

json error_object(std::string_view code, std::string_view message) {
  return {{"code", code}, {"message", message}};
}

std::string line_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// The id as a result line writes it.
json id_value(const std::string& id, bool integer) {
  return integer ? json::parse(id) : json(id);
}

template <class... Args>
JsonProblem problem(const char* member, fmt::format_string<Args...> format, Args&&... args) {
  return {member, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace

Result<RequestLine> parse_request(std::string_view text) {
  Result<json> value = parse_bounded_json(text, kBodyLimits);
  if (!value) return tl::unexpected(value.error());
  RequestLine line;
  line.integer_id = take_integer_id(*value);
  Result<GenerateRequest> request = from_json_value<GenerateRequest>(*value);
  if (!request) return tl::unexpected(request.error());
  if (const Result<void> checked = check_sizes(*request); !checked) return tl::unexpected(checked.error());
  line.request = *std::move(request);
  keep_written_order(text, line.request);
  return line;
}

bool take_integer_id(json& message) {
  if (!message.is_object()) return false;
  const auto id = message.find("id");
  if (id == message.end() || !id->is_number_integer()) return false;
  *id = id->dump();
  return true;
}

std::optional<JsonProblem> check_lists(const GenerateRequest& request) {
  if (request.stop.size() > kMaxStops)
    return problem("stop", "has {} strings, more than {}", request.stop.size(), kMaxStops);
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return problem("stop", "has an empty string");
    if (stop.size() > kMaxStopBytes) {
      return problem("stop", "has a string of {} bytes, more than {}", stop.size(), kMaxStopBytes);
    }
  }
  if (request.stop_token_ids.size() > kMaxStopTokens) {
    return problem("stop_token_ids", "has {} ids, more than {}", request.stop_token_ids.size(), kMaxStopTokens);
  }
  if (request.logit_bias.size() > kMaxLogitBiases) {
    return problem("logit_bias", "has {} tokens, more than {}", request.logit_bias.size(), kMaxLogitBiases);
  }
  if (request.bad_words.size() > kMaxBadWords) {
    return problem("bad_words", "has {} strings, more than {}", request.bad_words.size(), kMaxBadWords);
  }
  for (const std::string& word : request.bad_words) {
    if (word.empty()) return problem("bad_words", "has an empty string");
    if (word.size() > kMaxBadWordBytes) {
      return problem("bad_words", "has a string of {} bytes, more than {}", word.size(), kMaxBadWordBytes);
    }
  }
  if (request.allowed_token_ids && request.allowed_token_ids->size() > kMaxAllowedTokens) {
    return problem("allowed_token_ids", "has {} ids, more than {}", request.allowed_token_ids->size(),
                   kMaxAllowedTokens);
  }
  return std::nullopt;
}

Result<void> check_sizes(const GenerateRequest& request) {
  if (request.id.empty()) return fail("id must not be empty");
  if (request.id.size() > kMaxIdBytes) return fail("id has {} bytes, more than {}", request.id.size(), kMaxIdBytes);
  if (request.adapter && request.adapter->size() > kMaxAdapterBytes) {
    return fail("adapter has {} bytes, more than {}", request.adapter->size(), kMaxAdapterBytes);
  }
  if (request.cache_salt && request.cache_salt->size() > kMaxCacheSaltBytes) {
    return fail("cache_salt has {} bytes, more than {}", request.cache_salt->size(), kMaxCacheSaltBytes);
  }
  if (const auto wrong = check_lists(request)) return fail("{} {}", wrong->member, wrong->what);
  const char* not_finite = nullptr;
  GenerateRequest::fields(request, [&](const char* name, const auto& field) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, std::optional<double>>) {
      if (field && !std::isfinite(*field)) not_finite = name;
    }
  });
  if (not_finite != nullptr) return fail("{} must be a finite number", not_finite);
  return {};
}

std::string find_id(std::string_view text) {
  const Result<json> value = parse_bounded_json(text, kBodyLimits);
  if (!value || !value->is_object()) return "";
  const auto id = value->find("id");
  if (id != value->end() && id->is_number_integer()) return id->dump();
  if (id == value->end() || !id->is_string() || id->get_ref<const std::string&>().size() > kMaxIdBytes) return "";
  return id->get<std::string>();
}

ResultLine::ResultLine(const RequestLine& line)
    : id_(line.request.id),
      integer_id_(line.integer_id),
      with_logprobs_(line.request.logprobs.has_value()),
      with_prompt_logprobs_(line.request.prompt_logprobs || line.request.prompt_top_logprobs),
      with_prompt_top_(line.request.prompt_top_logprobs.has_value()),
      with_prompt_ids_(line.request.return_token_ids) {}

void ResultLine::add(const Delta& delta) {
  text_ += delta.text;
  token_ids_.insert(token_ids_.end(), delta.token_ids.begin(), delta.token_ids.end());
  logprobs_.insert(logprobs_.end(), delta.logprobs.begin(), delta.logprobs.end());
  if (delta.reasoning) reasoning_ += *delta.reasoning;
  add_tool_calls(delta.tool_calls, tool_calls_);
}

void ResultLine::restart() {
  text_.clear();
  token_ids_.clear();
  logprobs_.clear();
  reasoning_.clear();
  tool_calls_.clear();
}

// Only where there is any: most answers have neither.
void ResultLine::add_parts(nlohmann::json& line) const {
  if (!reasoning_.empty()) line["reasoning_content"] = reasoning_;
  if (tool_calls_.empty()) return;
  for (const ToolCall& call : tool_calls_) line["tool_calls"].push_back(tool_call_form(call));
}

std::string ResultLine::finish(const Done& done) const {
  json usage = to_json_value(done.usage);
  if (done.usage.reasoning_tokens == 0) usage.erase("reasoning_tokens");
  json line = {{"id", id_value(id_, integer_id_)},
               {"text", text_},
               {"token_ids", token_ids_},
               {"finish_reason", done.finish_reason},
               {"stop_reason", to_json_value(done.stop_reason)},
               {"seed", done.seed},
               {"logprobs", with_logprobs_ ? to_json_value(logprobs_) : json(nullptr)},
               {"prompt_logprobs", with_prompt_logprobs_ ? to_json_value(done.prompt_logprobs) : json(nullptr)},
               {"usage", std::move(usage)},
               {"error", nullptr}};
  if (with_prompt_ids_) line["prompt_token_ids"] = done.prompt_token_ids;
  if (with_prompt_top_) {
    line["prompt_ranks"] = done.prompt_ranks;
    line["prompt_top_logprobs"] = to_json_value(done.prompt_top_logprobs);
  }
  add_parts(line);
  return line_of(line);
}

std::string ResultLine::finish(const Failure& failure) const {
  json line = {{"id", id_value(id_, integer_id_)},
               {"text", text_},
               {"token_ids", token_ids_},
               {"finish_reason", nullptr},
               {"logprobs", with_logprobs_ ? to_json_value(logprobs_) : json(nullptr)},
               {"prompt_logprobs", nullptr},
               {"usage", nullptr},
               {"error", error_object(failure.code, failure.message)}};
  add_parts(line);
  return line_of(line);
}

std::string unreadable_line(size_t line, std::string_view text, const std::string& message) {
  json id = nullptr;
  if (const Result<json> value = parse_bounded_json(text, kBodyLimits); value && value->is_object()) {
    const auto found = value->find("id");
    if (found != value->end() && found->is_number_integer()) id = *found;
  }
  if (const std::string name = find_id(text); id.is_null() && !name.empty()) id = name;
  return line_of({{"id", std::move(id)}, {"line", line}, {"error", error_object("invalid_request", message)}});
}

}  // namespace lorikeet::comm
