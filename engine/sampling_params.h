// How a request wants its tokens drawn. Names, ranges and order of application are vLLM's SamplingParams.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorikeet::engine {

struct LogitBias {  // added to a token's logit, before penalties and temperature
  int32_t token_id = 0;
  float bias = 0;

  bool operator==(const LogitBias&) const = default;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("token_id", s.token_id);
    visit("bias", s.bias);
  }
};

// Rules for an answer, which the ranks enforce (model/grammar/answer_constraint.h).
struct AnswerRules {
  int32_t grammar_kind = -1;         // model::GrammarKind; -1: there is no grammar
  std::string grammar;               // its text; its digest on the way to the ranks
  std::vector<int32_t> stop_ids;     // that may come where the grammar is complete
  int32_t thinking = 0;              // model::AnswerConstraint::Thinking
  int32_t thinking_budget = -1;      // tokens of reasoning; -1: any number
  std::vector<int32_t> opening_tag;  // ids around reasoning
  std::vector<int32_t> closing_tag;

  bool any() const { return grammar_kind >= 0 || thinking_budget >= 0; }

  bool operator==(const AnswerRules&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("grammar_kind", s.grammar_kind);
    visit("grammar", s.grammar);
    visit("stop_ids", s.stop_ids);
    visit("thinking", s.thinking);
    visit("thinking_budget", s.thinking_budget);
    visit("opening_tag", s.opening_tag);
    visit("closing_tag", s.closing_tag);
  }
};

struct SamplingParams {
  float temperature = 1;  // < 1e-5: greedy
  float top_p = 1;
  int32_t top_k = 0;  // 0: off
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;        // the gateway draws one where the request has none
  int32_t max_tokens = 16;  // tokens to generate at the most
  int32_t logprobs = -1;    // -1: none; k: the sampled token and the k best
  bool prompt_logprobs = false;
  int32_t prompt_top_logprobs = -1;  // of every prompt token, beside: its rank and so many of the best; -1: neither
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;          // the model's eos ids are added by the gateway, unless ignore_eos
  std::vector<LogitBias> logit_bias;            // ordered by token id, each once
  int32_t min_tokens = 0;                       // before so many, none of ids_after_min_tokens is drawn
  std::vector<int32_t> ids_after_min_tokens;    // stop ids and the model's eos ids; empty where min_tokens is 0
  std::vector<std::vector<int32_t>> bad_words;  // none of these sequences is generated
  std::vector<int32_t> allowed_token_ids;       // no others are drawn; empty: all are allowed
  AnswerRules answer;

  bool operator==(const SamplingParams&) const = default;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("temperature", s.temperature);
    visit("top_p", s.top_p);
    visit("top_k", s.top_k);
    visit("min_p", s.min_p);
    visit("repetition_penalty", s.repetition_penalty);
    visit("presence_penalty", s.presence_penalty);
    visit("frequency_penalty", s.frequency_penalty);
    visit("seed", s.seed);
    visit("max_tokens", s.max_tokens);
    visit("logprobs", s.logprobs);
    visit("prompt_logprobs", s.prompt_logprobs);
    visit("prompt_top_logprobs", s.prompt_top_logprobs);
    visit("ignore_eos", s.ignore_eos);
    visit("stop_token_ids", s.stop_token_ids);
    visit("logit_bias", s.logit_bias);
    visit("min_tokens", s.min_tokens);
    visit("ids_after_min_tokens", s.ids_after_min_tokens);
    visit("bad_words", s.bad_words);
    visit("allowed_token_ids", s.allowed_token_ids);
    visit("answer", s.answer);
  }
};

}  // namespace lorikeet::engine
