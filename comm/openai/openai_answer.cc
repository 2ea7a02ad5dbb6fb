#include "comm/openai/openai_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "comm/openai/json_text.h"

namespace lorikeet::comm {
namespace {

constexpr float kLeastLogprob = -9999;  // JSON has no infinity; vLLM writes this
constexpr std::string_view kDone = "data: [DONE]\n\n";

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

nlohmann::ordered_json call_piece(const ToolCallDelta& call) {
  nlohmann::ordered_json piece = {{"index", call.index}};
  if (call.id) piece["id"] = *call.id;
  if (call.name) piece["type"] = "function";
  nlohmann::ordered_json& function = piece["function"] = nlohmann::ordered_json::object();
  if (call.name) function["name"] = *call.name;
  function["arguments"] = call.arguments.value_or("");
  return piece;
}

// With U+FFFD for bytes that are no UTF-8, as JSON shows them.
std::string in_letters(std::string text) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  return ascii ? text : nlohmann::json::parse(to_text(text)).get<std::string>();
}

float bounded(float logprob) {
  return std::max(logprob, kLeastLogprob);
}

}  // namespace

OpenAiAnswer::OpenAiAnswer(const OpenAiRequest& request, Setup setup)
    : setup_(std::move(setup)),
      kind_(request.kind),
      n_(request.n),
      stream_(request.stream),
      include_usage_(request.include_usage),
      continuous_usage_(request.continuous_usage_stats),
      with_logprobs_(request.logprobs),
      with_token_ids_(request.return_token_ids),
      names_are_ids_(request.return_tokens_as_token_ids),
      echo_(request.echo),
      with_prompt_logprobs_(request.prompt_logprobs),
      top_logprobs_(request.top_logprobs),
      prompts_(setup_.prompts),
      choices_(request.choices()),
      running_(choices_.size()) {}

const OpenAiAnswer::Prompt* OpenAiAnswer::prompt_of(const Choice& choice) const {
  const size_t index = static_cast<size_t>(&choice - choices_.data()) / static_cast<size_t>(n_);
  return index < prompts_.size() ? &prompts_[index] : nullptr;
}

void OpenAiAnswer::show_prompt(size_t index, Prompt prompt) {
  if (index >= prompts_.size()) prompts_.resize(index + 1);
  prompts_[index] = std::move(prompt);
}

OpenAiAnswer::Choice* OpenAiAnswer::find(const std::string& id) {
  size_t index = choices_.size();
  const auto parsed = std::from_chars(id.data(), id.data() + id.size(), index);
  if (parsed.ec != std::errc() || index >= choices_.size() || choices_[index].ended) return nullptr;
  return &choices_[index];
}

std::string OpenAiAnswer::add(const Delta& delta) {
  Choice* choice = find(delta.id);
  if (choice == nullptr) return {};
  if (delta.prompt) {
    choice->prompt_logprobs = delta.prompt->logprobs;
    choice->prompt_ranks = delta.prompt->ranks;
    choice->prompt_top_logprobs = delta.prompt->top_logprobs;
  }
  const auto count = static_cast<int32_t>(delta.token_ids.size());
  choice->usage.completion_tokens += count;
  choice->usage.prompt_tokens = std::max(choice->usage.prompt_tokens, delta.prompt_tokens);
  if (with_token_ids_ || with_logprobs_) {
    choice->unsent_ids.insert(choice->unsent_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    choice->logprobs.insert(choice->logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  }
  if (!stream_) {
    choice->text += delta.text;
    if (delta.reasoning) choice->reasoning += *delta.reasoning;
    add_tool_calls(delta.tool_calls, choice->tool_calls);
    return {};
  }
  // Without text there is nothing to show yet: a character or a stop string is unfinished.
  std::string events = first_event(*choice);
  const bool shows_ids = setup_.token_bytes == nullptr && !choice->unsent_ids.empty();
  if (!delta.text.empty() || delta.reasoning || !delta.tool_calls.empty() || shows_ids) {
    events += piece(*choice, delta, false);
  }
  return events;
}

std::string OpenAiAnswer::finish(const Done& done) {
  Choice* choice = find(done.id);
  if (choice == nullptr) return {};
  choice->ended = true;
  --running_;
  choice->finish_reason = done.finish_reason;
  if (done.stop_reason) std::visit([choice](const auto& reason) { choice->stop_reason = reason; }, *done.stop_reason);
  choice->usage = done.usage;
  if (!stream_ && (with_prompt_logprobs_ || (echo_ && with_logprobs_))) {
    choice->prompt_logprobs = done.prompt_logprobs;
    choice->prompt_ranks = done.prompt_ranks;
    choice->prompt_top_logprobs = done.prompt_top_logprobs;
  }
  if (!stream_) return {};
  std::string events = first_event(*choice) + piece(*choice, {}, true);
  if (!ended()) return events;
  if (include_usage_) {
    Json sums = head(true);
    sums["choices"] = Json::array();
    sums["usage"] = usage_json(usage());
    events += "data: " + to_text(sums) + "\n\n";
  }
  return events += kDone;
}

Usage OpenAiAnswer::usage() const {
  Usage sum;
  int32_t of_prompt = 0;  // tokens: any choice that has begun knows them
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Usage& one = choices_[i].usage;
    if (i % static_cast<size_t>(n_) == 0) {
      of_prompt = 0;
      sum.cached_tokens += one.cached_tokens;
    }
    sum.prompt_tokens += std::max(one.prompt_tokens - of_prompt, 0);
    of_prompt = std::max(of_prompt, one.prompt_tokens);
    sum.completion_tokens += one.completion_tokens;
    sum.reasoning_tokens += one.reasoning_tokens;
  }
  sum.total_tokens = sum.prompt_tokens + sum.completion_tokens;
  return sum;
}

std::vector<int32_t> OpenAiAnswer::longest_choices() const {
  std::vector<int32_t> longest;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i % static_cast<size_t>(n_) == 0) longest.push_back(0);
    longest.back() = std::max(longest.back(), choices_[i].usage.completion_tokens);
  }
  return longest;
}

std::string OpenAiAnswer::body() const {
  Json answer = head(false);
  Json& list = answer["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice choice = choices_[i];
    const Prompt* prompt = prompt_of(choices_[i]);
    Json one = {{"index", i}};
    if (is_chat()) {
      one["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
      Json& message = one["message"];
      if (choice.text.empty() && !choice.tool_calls.empty()) message["content"] = nullptr;
      if (!choice.reasoning.empty()) message["reasoning"] = message["reasoning_content"] = choice.reasoning;
      for (const ToolCall& call : choice.tool_calls) message["tool_calls"].push_back(Json(tool_call_form(call)));
    } else {
      one["text"] = echo_ && prompt != nullptr ? prompt->text + choice.text : choice.text;
    }
    if (with_token_ids_) {
      one["token_ids"] = choice.unsent_ids;
      if (prompt != nullptr && !is_chat()) one["prompt_token_ids"] = prompt->token_ids;
    }
    if (echo_ && prompt != nullptr) choice.characters = characters(prompt->text);
    one["logprobs"] = logprobs_of(choice);
    if (echo_ && with_logprobs_ && prompt != nullptr) add_prompt_logprobs(choice, *prompt, one["logprobs"]);
    if (with_prompt_logprobs_ && prompt != nullptr && !is_chat()) {
      one["prompt_logprobs"] = prompt_logprobs_of(choice, *prompt);
    }
    one["finish_reason"] = choice.finish_reason;
    one["stop_reason"] = choice.stop_reason;
    list.push_back(std::move(one));
  }
  answer["usage"] = usage_json(usage());
  if (with_token_ids_ && is_chat() && !prompts_.empty()) {
    answer["prompt_token_ids"] = prompts_.front().token_ids;  // where vLLM has it in a chat
  }
  if (with_prompt_logprobs_ && is_chat() && !prompts_.empty()) {
    answer["prompt_logprobs"] = prompt_logprobs_of(choices_.front(), prompts_.front());  // likewise
  }
  return to_text(answer);
}

OpenAiAnswer::Json OpenAiAnswer::head(bool chunk) const {
  const char* object = !is_chat() ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
  return {{"id", setup_.id}, {"object", object}, {"created", setup_.created}, {"model", setup_.model}};
}

std::string OpenAiAnswer::event(Json choice, Json prompt_logprobs) const {
  Json chunk = head(true);
  chunk["choices"] = Json::array();
  chunk["choices"].push_back(std::move(choice));
  if (!prompt_logprobs.is_null()) chunk["prompt_logprobs"] = std::move(prompt_logprobs);
  if (continuous_usage_) {
    chunk["usage"] = usage_json(usage());
  } else if (include_usage_) {
    chunk["usage"] = nullptr;  // as OpenAI: the last event has it
  }
  return "data: " + to_text(chunk) + "\n\n";
}

// A chat's choice begins with its role, a completion's that is to echo with its prompt. What is known of the prompt's
// tokens has come before.
std::string OpenAiAnswer::first_event(Choice& choice) {
  if (std::exchange(choice.begun, true)) return {};
  const Prompt* prompt = prompt_of(choice);
  const bool with_prompt_logprobs = with_prompt_logprobs_ && prompt != nullptr;
  Json one = {{"index", &choice - choices_.data()}};
  Json of_chat;  // where a whole chat has them, too
  if (is_chat()) {
    one["delta"] = {{"role", "assistant"}, {"content", ""}};
    if (with_prompt_logprobs && &choice == choices_.data()) of_chat = prompt_logprobs_of(choice, *prompt);
  } else {
    if (prompt == nullptr) return {};
    one["text"] = echo_ ? prompt->text : std::string();
    if (with_token_ids_) one["prompt_token_ids"] = prompt->token_ids;
    if (with_prompt_logprobs) one["prompt_logprobs"] = prompt_logprobs_of(choice, *prompt);
    if (echo_) choice.characters = characters(prompt->text);
  }
  one["logprobs"] = nullptr;
  if (echo_ && with_logprobs_) add_prompt_logprobs(choice, *prompt, one["logprobs"]);
  one["finish_reason"] = nullptr;
  choice.prompt_logprobs.clear();
  choice.prompt_ranks.clear();
  choice.prompt_top_logprobs.clear();
  return event(std::move(one), std::move(of_chat));
}

std::string OpenAiAnswer::piece(Choice& choice, const Delta& delta, bool last) {
  Json one = {{"index", &choice - choices_.data()}};
  if (is_chat()) {
    Json& of_chat = one["delta"] = Json::object();
    if (!delta.text.empty()) of_chat["content"] = delta.text;
    if (delta.reasoning) of_chat["reasoning"] = of_chat["reasoning_content"] = *delta.reasoning;
    for (const ToolCallDelta& call : delta.tool_calls) of_chat["tool_calls"].push_back(call_piece(call));
  } else {
    one["text"] = delta.text;
  }
  if (with_token_ids_) one["token_ids"] = choice.unsent_ids;
  one["logprobs"] = logprobs_of(choice);
  choice.unsent_ids.clear();
  choice.logprobs.clear();
  one["finish_reason"] = last ? Json(choice.finish_reason) : Json();
  if (last) one["stop_reason"] = choice.stop_reason;
  return event(std::move(one));
}

std::string_view OpenAiAnswer::bytes_of(int32_t id) const {
  return setup_.token_bytes ? setup_.token_bytes(id) : std::string_view();
}

std::string OpenAiAnswer::text_of(int32_t id) const {
  return setup_.token_bytes ? std::string(setup_.token_bytes(id)) : fmt::format("token_id:{}", id);
}

// vLLM's form, which keeps tokens apart whose texts are equal or no text at all.
std::string OpenAiAnswer::name_of(int32_t id) const {
  return names_are_ids_ ? fmt::format("token_id:{}", id) : text_of(id);
}

OpenAiAnswer::Json OpenAiAnswer::token_entry(int32_t id, float logprob) const {
  const std::string_view bytes = bytes_of(id);
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return {{"token", name_of(id)}, {"logprob", bounded(logprob)}, {"bytes", std::move(list)}};
}

// The first `count` by their names, and the token itself, also where it is none of them. Of a name that several have, such
// as the parts of characters, which JSON has no letters for, counts the token's own, else the best one's: no key is
// there twice.
OpenAiAnswer::Json OpenAiAnswer::best_names(const TokenLogprobs& best, size_t count, int32_t id, float logprob) const {
  const std::string own = in_letters(name_of(id));
  Json top = Json::object();
  for (size_t k = 0; k < count; ++k) {
    std::string name = in_letters(name_of(best[k].first));
    if (name != own || best[k].first == id) top.emplace(std::move(name), bounded(best[k].second));
  }
  top[own] = bounded(logprob);
  return top;
}

OpenAiAnswer::Json OpenAiAnswer::logprobs_of(Choice& choice) const {
  const size_t count = std::min(choice.unsent_ids.size(), choice.logprobs.size());
  if (!with_logprobs_ || (stream_ && count == 0)) return nullptr;
  Json content = Json::array(), tokens = Json::array(), values = Json::array(), tops = Json::array(),
       offsets = Json::array();
  for (size_t i = 0; i < count; ++i) {
    const int32_t id = choice.unsent_ids[i];
    const TokenLogprobs& best = choice.logprobs[i];
    const auto found = std::find_if(best.begin(), best.end(), [id](const auto& entry) { return entry.first == id; });
    const float logprob = found == best.end() ? kLeastLogprob : found->second;
    const size_t alternatives = std::min(best.size(), static_cast<size_t>(top_logprobs_));
    if (is_chat()) {
      Json entry = token_entry(id, logprob);
      Json& top = entry["top_logprobs"] = Json::array();
      for (size_t k = 0; k < alternatives; ++k) top.push_back(token_entry(best[k].first, best[k].second));
      content.push_back(std::move(entry));
      continue;
    }
    const std::string_view bytes = bytes_of(id);
    tokens.push_back(name_of(id));
    values.push_back(bounded(logprob));
    tops.push_back(best_names(best, alternatives, id, logprob));
    offsets.push_back(choice.characters);
    choice.characters += characters(bytes);
  }
  if (is_chat()) return {{"content", std::move(content)}, {"refusal", nullptr}};
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

void OpenAiAnswer::add_prompt_logprobs(const Choice& choice, const Prompt& prompt, Json& logprobs) const {
  Json all = {{"tokens", Json::array()},
              {"token_logprobs", Json::array()},
              {"top_logprobs", Json::array()},
              {"text_offset", Json::array()}};
  int64_t offset = 0;
  for (size_t i = 0; i < prompt.token_ids.size(); ++i) {
    const std::string text = name_of(prompt.token_ids[i]);
    const bool scored = i < choice.prompt_logprobs.size() && choice.prompt_logprobs[i].has_value();
    const float logprob = scored ? bounded(choice.prompt_logprobs[i].value()) : 0;
    Json top;
    if (scored && i < choice.prompt_top_logprobs.size()) {
      const TokenLogprobs& best = choice.prompt_top_logprobs[i];
      const size_t alternatives = std::min(best.size(), static_cast<size_t>(top_logprobs_));
      top = best_names(best, alternatives, prompt.token_ids[i], logprob);
    }
    all["tokens"].push_back(text);
    all["token_logprobs"].push_back(scored ? Json(logprob) : Json());
    all["top_logprobs"].push_back(std::move(top));
    all["text_offset"].push_back(offset);
    offset += characters(bytes_of(prompt.token_ids[i]));
  }
  for (auto& [name, list] : all.items()) {
    for (Json& of_answer : logprobs[name]) list.push_back(std::move(of_answer));
  }
  logprobs = std::move(all);
}

// null for the first token, then the token itself and the best ones in its place.
OpenAiAnswer::Json OpenAiAnswer::prompt_logprobs_of(const Choice& choice, const Prompt& prompt) const {
  Json list = Json::array();
  const auto entry = [this](int32_t id, float logprob, int32_t rank) {
    return Json{{"logprob", bounded(logprob)}, {"rank", rank}, {"decoded_token", text_of(id)}};
  };
  const size_t count = std::min({prompt.token_ids.size(), choice.prompt_logprobs.size(), choice.prompt_ranks.size(),
                                 choice.prompt_top_logprobs.size()});
  for (size_t i = 0; i < count; ++i) {
    Json of_token;
    if (choice.prompt_logprobs[i]) {
      const int32_t id = prompt.token_ids[i];
      of_token[std::to_string(id)] = entry(id, *choice.prompt_logprobs[i], choice.prompt_ranks[i]);
      int32_t rank = 0;
      for (const auto& [best, logprob] : choice.prompt_top_logprobs[i]) {
        if (++rank; best != id) of_token[std::to_string(best)] = entry(best, logprob, rank);
      }
    }
    list.push_back(std::move(of_token));
  }
  return list;
}

OpenAiAnswer::Json OpenAiAnswer::usage_json(const Usage& usage) const {
  Json sums = {{"prompt_tokens", usage.prompt_tokens},
               {"completion_tokens", usage.completion_tokens},
               {"total_tokens", usage.total_tokens},
               {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
  if (usage.reasoning_tokens > 0) sums["completion_tokens_details"] = {{"reasoning_tokens", usage.reasoning_tokens}};
  return sums;
}

}  // namespace lorikeet::comm
