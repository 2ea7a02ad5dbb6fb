// The answer to one OpenAI request, put together from the events of its choices: one JSON object, or a stream of
// server-sent events. Shapes are OpenAI's, with vLLM's additions (stop_reason, token_ids).
//
// Pure: no sockets, no clock. Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/openai/openai_request.h"

namespace lorikeet::comm {

class OpenAiAnswer {
 public:
  struct Prompt {  // where OpenAiRequest::shows_prompts
    std::vector<int32_t> token_ids;
    std::string text;
  };
  struct Setup {
    std::string id;       // chatcmpl-... or cmpl-...
    std::string model;    // as the client named it, else the base model's name
    int64_t created = 0;  // seconds since 1970
    // Of a token id; may be part of a character. Null: there is no tokenizer, and token ids are all there is to show.
    std::function<std::string_view(int32_t)> token_bytes;
    std::vector<Prompt> prompts;  // one per prompt where they are shown, else none
  };

  // `request` says the shape; its prompts are not kept.
  OpenAiAnswer(const OpenAiRequest& request, Setup setup);

  // Sets a prompt that was not known at the start; not for streams.
  void show_prompt(size_t index, Prompt prompt);

  // An event of a choice; its id is the choice's index (OpenAiRequest::choice). Of a stream: what is to be sent now.
  // Events of choices that have ended or do not exist are dropped.
  std::string add(const Delta& delta);
  std::string finish(const Done& done);  // the last one's is followed by the sums, where asked for, and [DONE]

  bool ended() const { return running_ == 0; }
  std::string body() const;                      // of an answer that is no stream, when it has ended
  std::vector<int32_t> longest_choices() const;  // per prompt, in tokens
  Usage usage() const;                           // so far; prompts count once, however many choices they have

 private:
  using Json = nlohmann::ordered_json;

  struct Choice {
    bool begun = false, ended = false;
    std::string text, reasoning;       // of an answer that is no stream
    std::vector<ToolCall> tool_calls;  // the same
    std::vector<int32_t> token_ids;
    std::vector<TokenLogprobs> logprobs;  // not sent yet, one per token of unsent_ids
    std::vector<int32_t> unsent_ids;
    std::string finish_reason;
    Json stop_reason;
    Usage usage;
    int64_t characters = 0;                             // of the tokens whose log-probabilities were written
    std::vector<std::optional<float>> prompt_logprobs;  // these as PromptScores has them, until they are shown
    std::vector<int32_t> prompt_ranks;
    std::vector<TokenLogprobs> prompt_top_logprobs;
  };

  bool is_chat() const { return kind_ == OpenAiRequest::Kind::chat; }
  Choice* find(const std::string& id);
  const Prompt* prompt_of(const Choice& choice) const;  // null: it is not shown
  Json head(bool chunk) const;
  Json best_names(const TokenLogprobs& best, size_t count, int32_t id, float logprob) const;
  Json logprobs_of(Choice& choice) const;  // of the unsent tokens; null where not asked for
  void add_prompt_logprobs(const Choice& choice, const Prompt& prompt, Json& logprobs) const;  // of an echoed prompt
  Json prompt_logprobs_of(const Choice& choice, const Prompt& prompt) const;                   // in vLLM's form
  std::string_view bytes_of(int32_t id) const;
  std::string text_of(int32_t id) const;  // without tokenizer as vLLM does: "token_id:5"
  std::string name_of(int32_t id) const;  // of a token in log-probabilities: the same, or as the request wants it
  Json token_entry(int32_t id, float logprob) const;
  std::string event(Json choice, Json prompt_logprobs = nullptr) const;  // the latter: of a chat's prompt
  std::string first_event(Choice& choice);
  std::string piece(Choice& choice, const Delta& delta, bool last);
  Json usage_json(const Usage& usage) const;

  const Setup setup_;
  const OpenAiRequest::Kind kind_;
  const int32_t n_;
  const bool stream_, include_usage_, continuous_usage_, with_logprobs_, with_token_ids_, names_are_ids_, echo_,
      with_prompt_logprobs_;
  const int32_t top_logprobs_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;
  size_t running_;
};

}  // namespace lorikeet::comm
