#include "comm/openai/openai_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "comm/client/limits.h"
#include "comm/openai/answer_fields.h"
#include "comm/openai/body_reader.h"
#include "comm/openai/chat_fields.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

constexpr size_t kMaxAllChoices = 1024;       // of one request
constexpr size_t kMaxPromptBytes = 64 << 20;  // of all choices together
constexpr int32_t kMaxTopLogprobs = 20;       // as OpenAI
constexpr int64_t kLeastInt32 = std::numeric_limits<int32_t>::min();
constexpr int64_t kMostInt32 = std::numeric_limits<int32_t>::max();

std::optional<int32_t> narrow(std::optional<int64_t> value) {
  return value ? std::optional<int32_t>(static_cast<int32_t>(*value)) : std::nullopt;
}

// What both kinds have: model, stream, sampling.
void read_common(BodyReader& body, OpenAiRequest& request, GenerateRequest& to) {
  request.model = body.text("model");
  request.n = narrow(body.integer("n", 1, kMaxChoices)).value_or(1);
  request.stream = body.boolean("stream");
  const json& options = body.value("stream_options");
  if (!options.is_null()) {
    if (!options.is_object()) {
      body.refuse("stream_options", fmt::format("stream_options must be an object, not {}", json_type_name(options)));
    } else {
      const auto flag = [&options](const char* name) { return options.value(name, json(false)) == json(true); };
      request.include_usage = flag("include_usage");
      request.continuous_usage_stats = request.include_usage && flag("continuous_usage_stats");
    }
  }

  to.temperature = body.number("temperature");
  to.top_p = body.number("top_p");
  to.top_k = narrow(body.integer("top_k", kLeastInt32, kMostInt32));
  to.min_p = body.number("min_p");
  to.repetition_penalty = body.number("repetition_penalty");
  to.presence_penalty = body.number("presence_penalty");
  to.frequency_penalty = body.number("frequency_penalty");
  if (const auto seed =
          body.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max())) {
    to.seed = static_cast<uint64_t>(*seed);
  }
  to.max_tokens = narrow(body.integer("max_tokens", 0, kMostInt32));
  to.stop = body.texts("stop");
  to.stop_token_ids = body.integers("stop_token_ids");
  to.ignore_eos = body.boolean("ignore_eos");
  to.include_stop_str_in_output = body.boolean("include_stop_str_in_output");
  to.skip_special_tokens = body.boolean("skip_special_tokens", true);
  to.logit_bias = body.biases("logit_bias");
  to.min_tokens = narrow(body.integer("min_tokens", 0, kMostInt32));
  to.bad_words = body.texts("bad_words");
  if (!body.value("allowed_token_ids").is_null()) to.allowed_token_ids = body.integers("allowed_token_ids");
  to.truncate_prompt_tokens = narrow(body.integer("truncate_prompt_tokens", -1, kMostInt32));
  if (!body.value("add_special_tokens").is_null()) to.add_special_tokens = body.boolean("add_special_tokens");
  to.cache_salt = body.text("cache_salt");
  to.timeout = body.number("timeout");
  request.return_token_ids = body.boolean("return_token_ids");
  request.return_tokens_as_token_ids = body.boolean("return_tokens_as_token_ids");
  if (const auto best = narrow(body.integer("prompt_logprobs", 0, kMaxTopLogprobs))) {
    request.prompt_logprobs = true;
    to.prompt_top_logprobs = *best;
  }

  body.ignore({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "request_id",
               "spaces_between_special_tokens"});
  for (const char* name : {"use_beam_search", "priority", "logits_processors", "kv_transfer_params", "vllm_xargs"}) {
    body.refuse_unless_neutral(name);
  }
  read_format_fields(body, to);
}

OpenAiRequestResult finish(BodyReader& body, OpenAiRequest request, size_t prompt_bytes) {
  if (body.ok() && request.choices() > kMaxAllChoices) {
    body.refuse("n",
                fmt::format("{} choices in one request, at most {} are allowed", request.choices(), kMaxAllChoices));
  }
  if (body.ok() && prompt_bytes * static_cast<size_t>(request.n) > kMaxPromptBytes) {
    body.refuse("n", fmt::format("{} choices of {} bytes of prompts take more than {} bytes", request.n, prompt_bytes,
                                 kMaxPromptBytes));
  }
  if (auto error = body.finish()) return tl::unexpected(*std::move(error));
  request.unknown_fields = body.unknown();
  return request;
}

// ---- completions

std::optional<std::vector<int32_t>> token_ids(const json& list) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json& element : list) {
    const auto id = integer_of(element);
    if (!id || !std::in_range<int32_t>(*id)) return std::nullopt;
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

// "text", ["text", ...], [1, 2, ...] or [[1, 2, ...], ...]: the prompts, each a copy of `common`. Gives their bytes.
size_t read_prompts(BodyReader& body, const GenerateRequest& common, OpenAiRequest& request) {
  size_t bytes = 0;
  const auto add_text = [&](const json& text) {
    request.prompts.push_back(common);
    bytes += request.prompts.back().prompt.emplace(text.get<std::string>()).size();
  };
  const auto add_ids = [&](const json& list) {
    auto ids = token_ids(list);
    if (!ids) return false;
    bytes += ids->size() * sizeof(int32_t);
    request.prompts.push_back(common);
    request.prompts.back().prompt_token_ids = *std::move(ids);
    return true;
  };
  const json& prompt = body.value("prompt");
  bool understood = true;
  if (prompt.is_string()) {
    add_text(prompt);
  } else if (prompt.is_array() && !prompt.empty() && prompt.size() <= kMaxAllChoices && prompt[0].is_string()) {
    for (const json& element : prompt) {
      understood = understood && element.is_string();
      if (understood) add_text(element);
    }
  } else if (prompt.is_array() && !prompt.empty() && prompt.size() <= kMaxAllChoices && prompt[0].is_array()) {
    for (const json& element : prompt) understood = understood && element.is_array() && add_ids(element);
  } else {
    understood = prompt.is_array() && !prompt.empty() && add_ids(prompt);
  }
  if (!understood) {
    body.refuse("prompt", prompt.is_null()
                              ? "prompt is missing"
                              : fmt::format("prompt must be a string, a list of token ids, or a list of up to {} of "
                                            "either",
                                            kMaxAllChoices));
  }
  return bytes;
}

OpenAiRequestResult read_completion(BodyReader& body) {
  OpenAiRequest request;
  GenerateRequest common;
  request.kind = OpenAiRequest::Kind::completion;
  read_common(body, request, common);
  if (!common.max_tokens) common.max_tokens = 16;  // OpenAI's default
  if (const auto logprobs = narrow(body.integer("logprobs", 0, kMaxTopLogprobs))) {
    request.logprobs = true;
    common.logprobs = request.top_logprobs = *logprobs;
  }
  request.echo = body.boolean("echo");
  if (request.echo && request.logprobs) {
    common.prompt_top_logprobs = std::max(common.prompt_top_logprobs.value_or(0), request.top_logprobs);
  }
  for (const char* name : {"suffix", "prompt_embeds"}) body.refuse_unless_neutral(name);
  const auto best_of = body.integer("best_of", 1, kMaxChoices);
  if (best_of && *best_of != request.n) {
    body.refuse("best_of",
                fmt::format("best_of is {}, but n is {}: every answer is given back and none chosen, so leave "
                            "best_of out and give n",
                            *best_of, request.n));
  }
  const size_t bytes = read_prompts(body, common, request);
  return finish(body, std::move(request), bytes);
}

OpenAiRequestResult read_chat(BodyReader& body) {
  OpenAiRequest request;
  GenerateRequest common;
  request.kind = OpenAiRequest::Kind::chat;
  read_common(body, request, common);
  if (const auto most = body.integer("max_completion_tokens", 0, kMostInt32)) common.max_tokens = narrow(most);
  request.logprobs = body.boolean("logprobs");
  if (const auto top = narrow(body.integer("top_logprobs", 0, kMaxTopLogprobs))) {
    if (*top > 0 && !request.logprobs) body.refuse("top_logprobs", "top_logprobs needs logprobs to be true");
    request.top_logprobs = *top;
  }
  if (request.logprobs) common.logprobs = request.top_logprobs;
  body.ignore({"verbosity"});
  if (body.value("modalities") != json::array({"text"})) body.refuse_unless_neutral("modalities");
  for (const char* name :
       {"functions", "function_call", "audio", "prediction", "web_search_options", "echo", "mm_processor_kwargs"}) {
    body.refuse_unless_neutral(name);
  }
  read_tool_fields(body, common);
  read_chat_fields(body, common);
  const size_t bytes = chat_bytes(common);
  request.prompts.push_back(std::move(common));
  return finish(body, std::move(request), bytes);
}

}  // namespace

GenerateRequest OpenAiRequest::choice(size_t index) const {
  const auto per_prompt = static_cast<size_t>(n);
  GenerateRequest request = prompts.at(index / per_prompt);
  request.id = std::to_string(index);
  if (request.seed) *request.seed += index % per_prompt;
  request.early_prompt_logprobs = stream && request.prompt_top_logprobs.has_value();
  return request;
}

OpenAiRequestResult parse_completion(std::string_view text) {
  BodyReader body(text);
  return read_completion(body);
}

OpenAiRequestResult parse_chat(std::string_view text) {
  BodyReader body(text);
  return read_chat(body);
}

std::set<std::string, std::less<>> fields_of(OpenAiRequest::Kind kind) {
  BodyReader body("{}");
  static_cast<void>(kind == OpenAiRequest::Kind::chat ? read_chat(body) : read_completion(body));
  return body.known();
}

}  // namespace lorikeet::comm
