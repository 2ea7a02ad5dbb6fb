#include "actors/head/request_validation.h"

#include <fmt/format.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "comm/client/limits.h"
#include "comm/client/request_json.h"
#include "kernels/base/nearest_word.h"

namespace lorikeet::actors {
namespace {

using engine::ErrorCode;
using engine::RequestError;

constexpr double kMaxLogitBias = 100;  // OpenAI's range; values beyond are clamped, as in vLLM
constexpr double kGreedyTemperature = 1e-5;
constexpr double kLeastTemperature = 0.01;  // of a draw: below, the division would lose the smaller logits

template <class... Args>
tl::unexpected<RequestError> refuse(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(RequestError{code, fmt::format(format, std::forward<Args>(args)...)});
}

template <class... Args>
tl::unexpected<RequestError> invalid(fmt::format_string<Args...> format, Args&&... args) {
  return refuse(ErrorCode::invalid_request, format, std::forward<Args>(args)...);
}

// The same of one field of the request.
template <class... Args>
tl::unexpected<RequestError> wrong(std::string field, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(
      RequestError{ErrorCode::invalid_request, fmt::format(format, std::forward<Args>(args)...), std::move(field)});
}

// The request's value, else the model's, else the neutral one.
template <class T, class U>
double chosen(const std::optional<T>& request, const std::optional<U>& model, double neutral) {
  if (request) return static_cast<double>(*request);
  return model ? static_cast<double>(*model) : neutral;
}

// A name from outside, short enough for a sentence.
std::string quoted(const std::string& name) {
  return name.size() <= 80 ? "\"" + name + "\"" : "\"" + name.substr(0, 80) + "...\"";
}

constexpr const char* kWhitespace = " \t\n\v\f\r\x1c\x1d\x1e\x1f";

// Which names are served, and the one that may have been meant: of the first few, however many there are.
std::string served_names(const std::string& wanted, const AdapterNames& served) {
  constexpr size_t kNamesShown = 8, kNamesCompared = 32, kLongestCompared = 64;
  const size_t count = served.size();
  const AdapterNames::List first = served.list(kNamesCompared);
  if (first.empty()) return "none is served";
  std::vector<std::string> compared;
  for (const auto& [name, directory] : first) {
    if (name.size() <= kLongestCompared) compared.push_back(name);
  }
  const std::string meant = wanted.size() <= kLongestCompared ? nearest_word(wanted, compared) : "";
  std::string text = meant.empty() ? "" : fmt::format("did you mean {}? ", quoted(meant));
  text += count == 1 ? "the one that is served: " : fmt::format("{} are served: ", count);
  for (size_t i = 0; i < first.size(); ++i) {
    if (i == kNamesShown) return text + ", ...";
    text += (i == 0 ? "" : ", ") + quoted(first[i].first);
  }
  return text;
}

}  // namespace

comm::Failure failure_of(std::string id, const engine::RequestError& error) {
  comm::Failure failure{std::move(id), std::string(name_of(error.code)), error.message};
  if (!error.field.empty()) failure.field = error.field;
  return failure;
}

tl::expected<PreparedRequest, RequestError> RequestValidation::prepare(const comm::GenerateRequest& request,
                                                                       uint64_t drawn_seed) const {
  PreparedRequest prepared;
  engine::SamplingParams& sampling = prepared.request.sampling;
  if (auto ok = check_adapter(request.adapter); !ok) return tl::unexpected(ok.error());
  if (auto ok = check_timeout(request); !ok) return tl::unexpected(ok.error());
  if (auto ok = set_sampling(request, sampling); !ok) return tl::unexpected(ok.error());
  if (auto ok = set_stops(request, prepared); !ok) return tl::unexpected(ok.error());
  if (auto ok = set_constraints(request, sampling); !ok) return tl::unexpected(ok.error());
  auto prompt = read_prompt(request);
  if (!prompt) return tl::unexpected(prompt.error());
  if (prompt->ids.empty()) return invalid("the prompt is empty");
  if (auto ok = set_answer(request, prompt->opening, prepared); !ok) return tl::unexpected(ok.error());
  prepared.request.prompt = std::move(prompt->ids);
  if (auto ok = set_length(request, prepared); !ok) return tl::unexpected(ok.error());
  if (request.cache_salt && request.cache_salt->empty())
    return wrong("cache_salt", "cache_salt is empty; leave it out");
  prepared.request.adapter = request.adapter.value_or("");
  prepared.request.cache_salt = cache_salt_of(request, prepared.request.prompt.size());
  sampling.seed = request.seed.value_or(drawn_seed);
  return prepared;
}

RequestValidation::Refusal RequestValidation::check_adapter(const std::optional<std::string>& name) const {
  if (!name || context_.adapters.contains(*name)) return {};
  if (name->empty()) {
    return refuse(ErrorCode::unknown_adapter, "the adapter's name is empty; leave it out for the base model");
  }
  return refuse(ErrorCode::unknown_adapter, "there is no adapter {}; {}", quoted(*name),
                served_names(*name, context_.adapters));
}

// With more answers than may run and wait at once the last one would find no room, however idle the server is.
RequestValidation::Refusal RequestValidation::check_answers(size_t answers, size_t n) const {
  if (std::cmp_less_equal(answers, context_.max_answers)) return {};
  return wrong(n > 1 ? "n" : "prompt",
               "the request asks for {} answers, at most {} may run or wait (--max-num-seqs, --max-num-queued-reqs)",
               answers, context_.max_answers);
}

RequestValidation::Refusal RequestValidation::check_tokens(const std::vector<int32_t>& ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= context_.config.vocab_size) {
      return invalid("token id {} at position {} is outside of the vocabulary 0 .. {}", ids[i], i,
                     context_.config.vocab_size - 1);
    }
  }
  return {};
}

RequestValidation::Refusal RequestValidation::check_timeout(const comm::GenerateRequest& request) const {
  if (!request.timeout || (*request.timeout > 0 && *request.timeout <= comm::kMaxTimeoutSeconds)) return {};
  return wrong("timeout", "timeout is {} s, not above 0 and up to {:.0f}", *request.timeout, comm::kMaxTimeoutSeconds);
}

tl::expected<std::vector<int32_t>, RequestError> RequestValidation::prompt_of(
    const comm::GenerateRequest& request) const {
  return read_prompt(request).map([](ChatPrompt prompt) { return std::move(prompt.ids); });
}

RequestValidation::Refusal RequestValidation::set_answer(const comm::GenerateRequest& request,
                                                         const std::string& opening, PreparedRequest& prepared) const {
  auto answer = answer_rules(request, context_.chat, opening, context_.tokenizer.get(), context_.grammars.get());
  if (!answer) return invalid("{}", answer.error().message);
  if (answer->rules.grammar_kind >= 0) {
    if (!prepared.request.sampling.allowed_token_ids.empty()) {
      return invalid("allowed_token_ids and a grammar exclude each other");
    }
    answer->rules.stop_ids = end_tokens();
    if (answer->rules.stop_ids.empty()) return invalid("the model has no end token, so no grammar can be met");
  }
  prepared.request.sampling.answer = std::move(answer->rules);
  prepared.reading = std::move(answer->reading);
  return {};
}

tl::expected<ChatPrompt, RequestError> RequestValidation::read_prompt(const comm::GenerateRequest& request) const {
  auto prompt = whole_prompt_of(request);
  if (!prompt || !request.truncate_prompt_tokens) return prompt;
  int64_t most = *request.truncate_prompt_tokens;
  if (most == 0 || most < -1 || most > context_.max_model_len) {
    return wrong("truncate_prompt_tokens", "truncate_prompt_tokens is {}, neither -1 nor in 1 .. {}", most,
                 context_.max_model_len);
  }
  if (most == -1) most = std::max(context_.max_model_len - std::max(request.max_tokens.value_or(1), 1), 1);
  std::vector<int32_t>& ids = prompt->ids;
  if (static_cast<int64_t>(ids.size()) > most) ids.erase(ids.begin(), ids.end() - most);
  return prompt;
}

tl::expected<ChatPrompt, RequestError> RequestValidation::whole_prompt_of(const comm::GenerateRequest& request) const {
  const int given = request.prompt.has_value() + request.prompt_token_ids.has_value() + request.messages.has_value();
  if (given != 1) {
    return invalid("exactly one of prompt, prompt_token_ids and messages is needed, the request has {}", given);
  }
  std::vector<int32_t> ids;
  std::string opening;
  // A token is at least one byte, and no token of these vocabularies is longer than this: a text that cannot fit is
  // refused before it is tokenized.
  constexpr size_t kMaxTokenBytes = 512;
  const size_t max_bytes = static_cast<size_t>(context_.max_model_len) * kMaxTokenBytes;
  if (!context_.tokenizer && !request.prompt_token_ids) {
    return invalid("the checkpoint has no tokenizer; give prompt_token_ids");
  }
  if (request.prompt) {
    if (request.prompt->size() > max_bytes && !request.truncate_prompt_tokens) {
      return refuse(ErrorCode::too_long, "a prompt of {} bytes cannot fit into {} tokens", request.prompt->size(),
                    context_.max_model_len);
    }
    ids = request.add_special_tokens.value_or(true) ? context_.tokenizer->encode_prompt(*request.prompt)
                                                    : context_.tokenizer->encode(*request.prompt, true);
  } else if (request.messages) {
    if (request.messages->empty()) return invalid("messages is empty");
    if (!context_.chat_template) return invalid("{}", context_.chat_template.error().message);
    size_t bytes = comm::chat_bytes(request);
    for (const comm::Message& message : *request.messages) bytes -= message.role.size();
    if (bytes > max_bytes && !request.truncate_prompt_tokens) {
      return refuse(ErrorCode::too_long, "messages of {} bytes cannot fit into {} tokens", bytes,
                    context_.max_model_len);
    }
    auto rendered = chat_prompt(*context_.chat_template, *context_.tokenizer, request, context_.chat);
    if (!rendered) return invalid("{}", rendered.error().message);
    ids = std::move(rendered->ids);
    if (request.add_special_tokens.value_or(false)) ids = context_.tokenizer->framed(std::move(ids));
    opening = std::move(rendered->opening);
  } else {
    ids = *request.prompt_token_ids;
  }
  if (auto ok = check_tokens(ids); !ok) return tl::unexpected(ok.error());
  return ChatPrompt{std::move(ids), std::move(opening)};
}

RequestValidation::Refusal RequestValidation::set_sampling(const comm::GenerateRequest& request,
                                                           engine::SamplingParams& to) const {
  const model::GenerationDefaults& defaults = context_.defaults;
  double temperature = chosen(request.temperature, defaults.temperature, 1);
  const double top_p = chosen(request.top_p, defaults.top_p, 1);
  const double min_p = chosen(request.min_p, defaults.min_p, 0);
  const double repetition = chosen(request.repetition_penalty, defaults.repetition_penalty, 1);
  const double presence = request.presence_penalty.value_or(0);
  const double frequency = request.frequency_penalty.value_or(0);
  int32_t top_k = request.top_k ? *request.top_k : defaults.top_k.value_or(0);

  // Written so that a NaN fails each of them.
  if (!(temperature >= 0 && temperature <= 2))
    return wrong("temperature", "temperature is {}, not in 0 .. 2", temperature);
  if (!(top_p > 0 && top_p <= 1)) return wrong("top_p", "top_p is {}, not above 0 and up to 1", top_p);
  if (!(min_p >= 0 && min_p <= 1)) return wrong("min_p", "min_p is {}, not in 0 .. 1", min_p);
  if (!(std::isfinite(repetition) && repetition > 0 && std::isnormal(static_cast<float>(repetition)))) {
    return wrong("repetition_penalty", "repetition_penalty is {}, not a finite number above 0", repetition);
  }
  if (!(presence >= -2 && presence <= 2))
    return wrong("presence_penalty", "presence_penalty is {}, not in -2 .. 2", presence);
  if (!(frequency >= -2 && frequency <= 2))
    return wrong("frequency_penalty", "frequency_penalty is {}, not in -2 .. 2", frequency);
  if (top_k < -1) return wrong("top_k", "top_k is {}: 0 or -1 switch it off, 1 or more keep so many tokens", top_k);
  if (top_k >= context_.config.vocab_size) top_k = 0;
  if (request.n && (*request.n < 1 || *request.n > comm::kMaxChoices)) {
    return wrong("n", "n is {}, not in 1 .. {}", *request.n, comm::kMaxChoices);
  }
  const auto n = static_cast<size_t>(request.n.value_or(1));
  if (auto ok = check_answers(n, n); !ok) return ok;
  if (request.logprobs && (*request.logprobs < 0 || std::cmp_greater(*request.logprobs, comm::kMaxLogprobs))) {
    return wrong("logprobs", "logprobs is {}, not in 0 .. {}", *request.logprobs, comm::kMaxLogprobs);
  }
  if (request.prompt_top_logprobs &&
      (*request.prompt_top_logprobs < 0 || std::cmp_greater(*request.prompt_top_logprobs, comm::kMaxLogprobs))) {
    return wrong("prompt_top_logprobs", "prompt_top_logprobs is {}, not in 0 .. {}", *request.prompt_top_logprobs,
                 comm::kMaxLogprobs);
  }
  if (temperature >= kGreedyTemperature) temperature = std::max(temperature, kLeastTemperature);

  to.temperature = static_cast<float>(temperature);
  to.top_p = std::max(static_cast<float>(top_p), 1e-7F);
  to.min_p = static_cast<float>(min_p);
  to.top_k = std::max(top_k, 0);
  to.repetition_penalty = static_cast<float>(repetition);
  to.presence_penalty = static_cast<float>(presence);
  to.frequency_penalty = static_cast<float>(frequency);
  to.logprobs = request.logprobs.value_or(-1);
  to.prompt_logprobs = request.prompt_logprobs || request.prompt_top_logprobs;
  to.prompt_top_logprobs = request.prompt_top_logprobs.value_or(-1);
  to.ignore_eos = request.ignore_eos;
  return {};
}

RequestValidation::Refusal RequestValidation::set_stops(const comm::GenerateRequest& request,
                                                        PreparedRequest& prepared) const {
  if (!context_.tokenizer && !request.stop.empty()) {
    return invalid("the checkpoint has no tokenizer, so stop strings mean nothing; give stop_token_ids");
  }
  if (const auto problem = comm::check_lists(request))
    return wrong(problem->member, "{} {}", problem->member, problem->what);
  for (const int32_t id : request.stop_token_ids) {
    if (id < 0 || id >= context_.config.vocab_size) {
      return wrong("stop_token_ids", "stop token id {} is outside of the vocabulary 0 .. {}", id,
                   context_.config.vocab_size - 1);
    }
  }
  std::vector<int32_t>& ids = prepared.request.sampling.stop_token_ids;
  ids = request.stop_token_ids;
  if (!request.ignore_eos) {
    prepared.eos_token_ids = end_tokens();
    ids.insert(ids.end(), prepared.eos_token_ids.begin(), prepared.eos_token_ids.end());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const int32_t min_tokens = request.min_tokens.value_or(0);
  if (min_tokens < 0) return wrong("min_tokens", "min_tokens is {}, below 0", min_tokens);
  if (min_tokens > 0) {  // the model's own end is held back, too, where it is ignored
    prepared.request.sampling.min_tokens = min_tokens;
    std::vector<int32_t>& later = prepared.request.sampling.ids_after_min_tokens;
    later = end_tokens();
    later.insert(later.end(), ids.begin(), ids.end());
    std::sort(later.begin(), later.end());
    later.erase(std::unique(later.begin(), later.end()), later.end());
  }
  prepared.text = {request.stop,          ids,       request.include_stop_str_in_output, request.skip_special_tokens,
                   marked_stops(request), min_tokens};
  return {};
}

RequestValidation::Refusal RequestValidation::set_constraints(const comm::GenerateRequest& request,
                                                              engine::SamplingParams& to) const {
  const auto is_token = [this](int32_t id) { return id >= 0 && id < context_.config.vocab_size; };
  for (const auto& [id, bias] : request.logit_bias) {
    if (!is_token(id)) {
      return wrong("logit_bias", "logit_bias has token id {}, outside of the vocabulary 0 .. {}", id,
                   context_.config.vocab_size - 1);
    }
    if (std::isnan(bias)) return wrong("logit_bias", "logit_bias of token id {} is not a number", id);
    to.logit_bias.push_back({id, static_cast<float>(std::clamp(bias, -kMaxLogitBias, kMaxLogitBias))});
  }
  std::sort(to.logit_bias.begin(), to.logit_bias.end(),
            [](const engine::LogitBias& a, const engine::LogitBias& b) { return a.token_id < b.token_id; });
  const auto twice = std::adjacent_find(
      to.logit_bias.begin(), to.logit_bias.end(),
      [](const engine::LogitBias& a, const engine::LogitBias& b) { return a.token_id == b.token_id; });
  if (twice != to.logit_bias.end()) return wrong("logit_bias", "logit_bias has token id {} twice", twice->token_id);
  if (request.allowed_token_ids) {
    if (request.allowed_token_ids->empty())
      return wrong("allowed_token_ids", "allowed_token_ids is empty: no token could be drawn");
    for (const int32_t id : *request.allowed_token_ids) {
      if (!is_token(id)) {
        return wrong("allowed_token_ids", "allowed_token_ids has {}, outside of the vocabulary 0 .. {}", id,
                     context_.config.vocab_size - 1);
      }
    }
    to.allowed_token_ids = *request.allowed_token_ids;
  }
  if (!request.bad_words.empty() && !context_.tokenizer) {
    return invalid("the checkpoint has no tokenizer, so bad_words mean nothing; give logit_bias");
  }
  to.bad_words = bad_words_of(request);
  if (request.allowed_token_ids && !leaves_a_first_token(to)) {
    return wrong("allowed_token_ids", "allowed_token_ids has no token that bad_words and min_tokens leave to draw");
  }
  return {};
}

// Of a word of several tokens only the last is forbidden, and only behind the others.
bool RequestValidation::leaves_a_first_token(const engine::SamplingParams& sampling) {
  std::vector<int32_t> forbidden = sampling.ids_after_min_tokens;
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    if (word.size() == 1) forbidden.push_back(word[0]);
  }
  std::sort(forbidden.begin(), forbidden.end());
  return std::any_of(sampling.allowed_token_ids.begin(), sampling.allowed_token_ids.end(),
                     [&](int32_t id) { return !std::binary_search(forbidden.begin(), forbidden.end(), id); });
}

// A word at the begin of a text, and behind a space where the space becomes part of its first token (vLLM's rule).
std::vector<std::vector<int32_t>> RequestValidation::bad_words_of(const comm::GenerateRequest& request) const {
  std::vector<std::vector<int32_t>> words;
  for (const std::string& word : request.bad_words) {
    const size_t begin = word.find_first_not_of(kWhitespace);
    const std::string bare = begin == std::string::npos ? word : word.substr(begin);
    std::vector<int32_t> first = context_.tokenizer->encode(bare, true);
    if (first.empty()) continue;
    std::vector<int32_t> spaced = context_.tokenizer->encode(" " + bare, true);
    const bool another = begin != std::string::npos && spaced.front() != first.front() && spaced.size() == first.size();
    words.push_back(std::move(first));
    if (another) words.push_back(std::move(spaced));
  }
  return words;
}

// A generation_config.json of another model names tokens that this one does not have: they never come.
std::vector<int32_t> RequestValidation::end_tokens() const {
  std::vector<int32_t> ids = context_.defaults.eos_token_ids;
  if (context_.tokenizer) ids.push_back(context_.tokenizer->eos_id());
  std::erase_if(ids, [this](int32_t id) { return id < 0 || id >= context_.config.vocab_size; });
  return ids;
}

std::vector<std::string> RequestValidation::marked_stops(const comm::GenerateRequest& request) const {
  std::vector<std::string> marked;
  if (!context_.tokenizer || !request.skip_special_tokens) return marked;
  const model::Tokenizer& tokenizer = *context_.tokenizer;
  for (const std::string& stop : request.stop) {
    std::string plain, with_marks;
    for (const int32_t id : tokenizer.encode(stop, true)) {
      plain += tokenizer.bytes_of(id);
      with_marks += tokenizer.is_special(id) ? TextStream::marked(tokenizer.bytes_of(id)) : tokenizer.bytes_of(id);
    }
    const bool spells_special = plain == stop && with_marks != plain;
    marked.push_back(spells_special ? std::move(with_marks) : std::string());
  }
  return marked;
}

RequestValidation::Refusal RequestValidation::set_length(const comm::GenerateRequest& request,
                                                         PreparedRequest& prepared) const {
  engine::Request& to = prepared.request;
  const auto prompt = static_cast<int64_t>(to.prompt.size());
  const int64_t left = context_.max_model_len - prompt;
  if (left < 1) {
    return refuse(ErrorCode::too_long, "the prompt has {} tokens, the context holds {} with at least one generated",
                  prompt, context_.max_model_len);
  }
  if (request.max_tokens && *request.max_tokens < 0)
    return wrong("max_tokens", "max_tokens is {}, below 0", *request.max_tokens);
  if (request.max_tokens && *request.max_tokens > left) {
    return refuse(ErrorCode::too_long, "{} prompt tokens and max_tokens {} exceed the context of {}", prompt,
                  *request.max_tokens, context_.max_model_len);
  }
  // What generation_config.json says bounds answers that the request does not.
  const int64_t open_end = std::min<int64_t>(left, context_.defaults.max_new_tokens.value_or(INT32_MAX));
  const auto max_tokens =
      request.max_tokens.value_or(static_cast<int32_t>(std::clamp<int64_t>(to.sampling.min_tokens, open_end, left)));
  if (to.sampling.min_tokens > max_tokens) {
    return wrong("min_tokens", "min_tokens is {}, above max_tokens {}", to.sampling.min_tokens, max_tokens);
  }
  const int64_t of_answers = prompt * std::max(1, request.n.value_or(1));
  const auto of_prompt = static_cast<size_t>(of_answers) * static_cast<size_t>(to.sampling.prompt_top_logprobs + 1);
  if (of_prompt > comm::kMaxPromptLogprobs) {
    return invalid("prompt_top_logprobs {} of {} tokens are more than {} values", to.sampling.prompt_top_logprobs,
                   of_answers, comm::kMaxPromptLogprobs);
  }
  prepared.prompt_only = request.max_tokens == 0;
  to.sampling.max_tokens = std::max(max_tokens, 1);
  to.max_tokens_may_shrink = !request.max_tokens;
  return {};
}

// With dynamic NTK a sequence's rotary base follows from its prompt's length, and so does the content of its KV blocks. A
// client's salt comes as a part of its SHA-256: nobody finds the one of a salt that he does not know.
uint64_t RequestValidation::cache_salt_of(const comm::GenerateRequest& request, size_t prompt_size) const {
  const uint64_t base = rotary_base_of(prompt_size);
  if (!request.cache_salt) return base;
  const std::string text = fmt::format("{} {}", base, *request.cache_salt);
  std::array<uint8_t, SHA256_DIGEST_LENGTH> hash{};
  SHA256(reinterpret_cast<const uint8_t*>(text.data()), text.size(), hash.data());
  uint64_t salt = 0;
  std::memcpy(&salt, hash.data(), sizeof salt);
  return salt;
}

uint64_t RequestValidation::rotary_base_of(size_t prompt_size) const {
  const model::ModelConfig& config = context_.config;
  if (!config.use_dynamic_ntk || config.seq_length <= 0) return 0;
  uint64_t alpha = 1;  // 2^ceil(log2(n / seq_length) + 1) - 1, at least 1
  for (auto length = static_cast<uint64_t>(config.seq_length); length < prompt_size; length *= 2) alpha = 2 * alpha + 1;
  return alpha;
}

}  // namespace lorikeet::actors
