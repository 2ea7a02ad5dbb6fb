// What clients and the server say to each other, over ZeroMQ (comm/PROTOCOL.md) and as lines of `lorikeet batch`.
// The JSON names of the fields are the names below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "comm/client/chat_message.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

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
  std::vector<std::pair<int32_t, double>> logit_bias;  // [(token id, -100 .. 100)]; in JSON also {"id": bias}
  std::optional<int32_t> min_tokens;                   // no end token and no stop before so many
  std::vector<std::string> bad_words;                  // not to be generated, with and without a space in front
  std::optional<std::vector<int32_t>> allowed_token_ids;
  std::optional<int32_t> truncate_prompt_tokens;  // the last so many of the prompt; -1: as many as the context holds
  std::optional<bool> add_special_tokens;         // around the prompt; absent: to a prompt's text, not to messages
  std::optional<std::string> cache_salt;          // prefixes are shared only with requests of the same one
  std::optional<double> timeout;                  // seconds from arrival to the end
  bool return_token_ids = false;                  // Done has the prompt's
  std::optional<int32_t> prompt_top_logprobs;  // prompt_logprobs, and for every token its rank and so many of the best

  // Of a chat alone.
  std::vector<JsonText> tools, documents;        // objects that the chat template shows
  std::optional<JsonText> chat_template_kwargs;  // an object: further variables of the template
  std::optional<std::string> chat_template;      // Jinja, in place of the server's; only if the server allows it
  std::optional<bool> add_generation_prompt;     // absent: true, and false beside continue_final_message
  bool continue_final_message = false;           // the answer goes on where the last message ends
  std::optional<JsonText> tool_choice;           // "auto", "none", "required" or {"type", "function": {"name"}}
  std::optional<bool> parallel_tool_calls;       // absent: true
  std::optional<std::string> reasoning_effort;   // none, minimal, low, medium, high
  std::optional<int32_t> thinking_budget;        // tokens of reasoning, after which it is closed
  bool include_reasoning = true;                 // in the answer
  // Of any request: what the answer must be like.
  std::optional<JsonText> response_format, structured_outputs;
  std::optional<int32_t> n;            // answers, each with its index and a Done of its own; absent: 1
  bool early_prompt_logprobs = false;  // the prompt's log-probabilities come with the first Delta, not with Done

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
    visit("logit_bias", s.logit_bias);
    visit("min_tokens", s.min_tokens);
    visit("bad_words", s.bad_words);
    visit("allowed_token_ids", s.allowed_token_ids);
    visit("truncate_prompt_tokens", s.truncate_prompt_tokens);
    visit("add_special_tokens", s.add_special_tokens);
    visit("cache_salt", s.cache_salt);
    visit("timeout", s.timeout);
    visit("return_token_ids", s.return_token_ids);
    visit("prompt_top_logprobs", s.prompt_top_logprobs);
    visit("tools", s.tools);
    visit("documents", s.documents);
    visit("chat_template_kwargs", s.chat_template_kwargs);
    visit("chat_template", s.chat_template);
    visit("add_generation_prompt", s.add_generation_prompt);
    visit("continue_final_message", s.continue_final_message);
    visit("tool_choice", s.tool_choice);
    visit("parallel_tool_calls", s.parallel_tool_calls);
    visit("reasoning_effort", s.reasoning_effort);
    visit("thinking_budget", s.thinking_budget);
    visit("include_reasoning", s.include_reasoning);
    visit("response_format", s.response_format);
    visit("structured_outputs", s.structured_outputs);
    visit("n", s.n);
    visit("early_prompt_logprobs", s.early_prompt_logprobs);
  }
};

// Bytes of what a chat hands to its template: about the memory that it takes, and the time to read it.
size_t chat_bytes(const GenerateRequest& request);

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t total_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t reasoning_tokens = 0;  // of completion_tokens
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("prompt_tokens", s.prompt_tokens);
    visit("completion_tokens", s.completion_tokens);
    visit("total_tokens", s.total_tokens);
    visit("cached_tokens", s.cached_tokens);
    visit("reasoning_tokens", s.reasoning_tokens);
  }
};

using TokenLogprobs = std::vector<std::pair<int32_t, float>>;  // [(token id, log-probability)], best first

// A piece of a call of a tool. The first piece of a call has its id and name; all arguments put together are what the
// model wrote.
struct ToolCallDelta {
  int32_t index = 0;  // of the call, from 0
  std::optional<std::string> id, name;
  std::optional<std::string> arguments;

  bool operator==(const ToolCallDelta&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("index", s.index);
    visit("id", s.id);
    visit("name", s.name);
    visit("arguments", s.arguments);
  }
};

// Puts pieces of calls together.
void add_tool_calls(const std::vector<ToolCallDelta>& pieces, std::vector<ToolCall>& calls);

// Of a prompt's tokens, one entry for each, none, 0 and empty for the first: its log-probability, its rank (1: none is more
// probable) and the best tokens in its place. The latter two only where prompt_top_logprobs was asked for.
struct PromptScores {
  std::vector<std::optional<float>> logprobs;
  std::vector<int32_t> ranks;
  std::vector<TokenLogprobs> top_logprobs;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("logprobs", s.logprobs);
    visit("ranks", s.ranks);
    visit("top_logprobs", s.top_logprobs);
  }
};

// A piece of the answer, as it is generated. text may be empty while a character or a stop string is unfinished.
struct Delta {
  std::string id;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprobs> logprobs;      // one per token id where the request asked for them
  std::optional<std::string> reasoning{};   // of a chat, where the server takes it out of the text
  std::vector<ToolCallDelta> tool_calls{};  // likewise
  std::optional<int32_t> index{};           // of the answer, from 0, where several were asked for
  std::optional<PromptScores> prompt{};     // of the first piece where early_prompt_logprobs was asked for
  int32_t prompt_tokens = 0;                // not sent; the server's own HTTP door needs it for running sums
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("text", s.text);
    visit("token_ids", s.token_ids);
    visit("logprobs", s.logprobs);
    visit("reasoning", s.reasoning);
    visit("tool_calls", s.tool_calls);
    visit("index", s.index);
    visit("prompt", s.prompt);
  }
};

// What ended an answer: the stop string, or the stop id.
using StopReason = std::variant<std::string, int32_t>;

// The one final answer of a request: Done or Failure. Of n answers each has its Done, or one Failure ends all.
struct Done {
  std::string id;
  std::string finish_reason;                          // stop, length, abort, tool_calls
  std::optional<StopReason> stop_reason;              // none for the model's own end token
  std::vector<std::optional<float>> prompt_logprobs;  // where asked for: none for the first token
  uint64_t seed = 0;                                  // the one that was used
  Usage usage;
  std::vector<int32_t> prompt_token_ids = {};  // where asked for (return_token_ids)
  // Where asked for, per prompt token, 0 and empty for the first: its rank (1: none is more probable), the best tokens.
  std::vector<int32_t> prompt_ranks = {};
  std::vector<TokenLogprobs> prompt_top_logprobs = {};
  std::optional<int32_t> index{};  // as Delta's
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("finish_reason", s.finish_reason);
    visit("stop_reason", s.stop_reason);
    visit("prompt_logprobs", s.prompt_logprobs);
    visit("seed", s.seed);
    visit("usage", s.usage);
    visit("prompt_token_ids", s.prompt_token_ids);
    visit("prompt_ranks", s.prompt_ranks);
    visit("prompt_top_logprobs", s.prompt_top_logprobs);
    visit("index", s.index);
  }
};

struct Failure {
  std::string id;    // empty where the request could not be read far enough to know
  std::string code;  // engine::name_of(ErrorCode), or malformed, forbidden, rate_limited, timed_out, server_lost
  std::string message;
  std::optional<int32_t> retry_after_s{};  // of rate_limited: when to try again
  std::optional<std::string> field{};      // not sent; the request's wrong field, for the server's own HTTP door
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("code", s.code);
    visit("message", s.message);
    visit("retry_after_s", s.retry_after_s);
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
  bool brief = false;  // of the adapters, those whose weights are in slots or memory, and few of the others
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("brief", s.brief);
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

// Changes which adapters are served, or where one of them is kept. Answered by AdapterReply or Failure.
struct AdapterRequest {
  std::string id;
  std::string action;               // load, unload, pin, unpin, warm or list
  std::optional<std::string> name;  // of the adapter; not for list
  std::optional<std::string> path;  // for load alone: its directory, as the server sees it
  bool load_inplace = false;        // load: if the name is taken, it gets the new content
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("action", s.action);
    visit("name", s.name);
    visit("path", s.path);
    visit("load_inplace", s.load_inplace);
  }
};

struct AdapterReply {
  std::string id;
  std::string message;              // a sentence; empty for list
  std::optional<std::string> json;  // list: one JSON object, documented in comm/PROTOCOL.md
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("message", s.message);
    visit("json", s.json);
  }
};

// Forgets the prefixes that are cached, once no sequence uses them; for administrators. Answered by PrefixCacheReset or
// Failure.
struct ResetPrefixCacheRequest {
  std::string id;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
  }
};

struct PrefixCacheReset {
  std::string id;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
  }
};

enum class Encoding : uint8_t { cereal, json };  // of the messages of one client

using ClientMessage = std::variant<GenerateRequest, Cancel, StatusRequest, AdapterRequest, ResetPrefixCacheRequest>;
using ServerMessage = std::variant<Delta, Done, Failure, StatusReply, AdapterReply, PrefixCacheReset>;

}  // namespace lorikeet::comm
