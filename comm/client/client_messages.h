// What clients and the server say to each other, over ZeroMQ (comm/PROTOCOL.md) and as lines of `lorikeet batch`.
// The JSON names of the fields are the names below.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::comm {

struct Message {  // of a chat
  std::string role;
  std::string content;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("role", s.role);
    visit("content", s.content);
  }
};

// Exactly one of prompt, prompt_token_ids and messages is given. Absent values fall back to generation_config.json,
// then to the neutral value.
struct GenerateRequest {
  std::string id;  // the client's own name for the request, unique among its running ones
  std::optional<std::string> prompt;
  std::optional<std::vector<int32_t>> prompt_token_ids;
  std::optional<std::vector<Message>> messages;
  std::optional<std::string> adapter;  // absent: the base model; empty or unknown: an error
  std::optional<int32_t> max_tokens;   // absent: what remains of the context
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::optional<int32_t> logprobs;
  bool prompt_logprobs = false;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("prompt", s.prompt);
    visit("prompt_token_ids", s.prompt_token_ids);
    visit("messages", s.messages);
    visit("adapter", s.adapter);
    visit("max_tokens", s.max_tokens);
    visit("temperature", s.temperature);
    visit("top_p", s.top_p);
    visit("top_k", s.top_k);
    visit("min_p", s.min_p);
    visit("repetition_penalty", s.repetition_penalty);
    visit("presence_penalty", s.presence_penalty);
    visit("frequency_penalty", s.frequency_penalty);
    visit("seed", s.seed);
    visit("stop", s.stop);
    visit("stop_token_ids", s.stop_token_ids);
    visit("logprobs", s.logprobs);
    visit("prompt_logprobs", s.prompt_logprobs);
    visit("ignore_eos", s.ignore_eos);
    visit("include_stop_str_in_output", s.include_stop_str_in_output);
    visit("skip_special_tokens", s.skip_special_tokens);
  }
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t total_tokens = 0;
  int32_t cached_tokens = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("prompt_tokens", s.prompt_tokens);
    visit("completion_tokens", s.completion_tokens);
    visit("total_tokens", s.total_tokens);
    visit("cached_tokens", s.cached_tokens);
  }
};

using TokenLogprobs = std::vector<std::pair<int32_t, float>>;  // [(token id, log-probability)], best first

// A piece of the answer, as it is generated. text may be empty while a character or a stop string is unfinished.
struct Delta {
  std::string id;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprobs> logprobs;  // one per token id where the request asked for them
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("text", s.text);
    visit("token_ids", s.token_ids);
    visit("logprobs", s.logprobs);
  }
};

// The one final answer of a request: Done or Failure.
struct Done {
  std::string id;
  std::string finish_reason;                          // stop, length, abort
  std::optional<std::string> stop_reason;             // the matched stop string, or a stop id in decimal; none for eos
  std::vector<std::optional<float>> prompt_logprobs;  // where asked for: none for the first token
  uint64_t seed = 0;                                  // the one that was used
  Usage usage;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("finish_reason", s.finish_reason);
    visit("stop_reason", s.stop_reason);
    visit("prompt_logprobs", s.prompt_logprobs);
    visit("seed", s.seed);
    visit("usage", s.usage);
  }
};

struct Failure {
  std::string id;    // empty where the request could not be read far enough to know
  std::string code;  // engine::name_of(ErrorCode), or malformed, server_lost
  std::string message;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("code", s.code);
    visit("message", s.message);
  }
};

// Ends one of the client's running requests; its answer is Done with finish_reason "abort". Unknown ids are ignored.
struct Cancel {
  std::string id;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
  }
};

// Asks for the server's state: ranks, adapters, queues.
struct StatusRequest {
  std::string id;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
  }
};

struct StatusReply {
  std::string id;
  std::string json;  // one JSON object; its keys are documented in comm/PROTOCOL.md
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("json", s.json);
  }
};

enum class Encoding : uint8_t { cereal, json };  // of the messages of one client

using ClientMessage = std::variant<GenerateRequest, Cancel, StatusRequest>;
using ServerMessage = std::variant<Delta, Done, Failure, StatusReply>;

}  // namespace lorikeet::comm
