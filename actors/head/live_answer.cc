#include "actors/head/live_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::actors {
namespace {

void add_piece(LiveRequest& request, model::AnswerPiece piece, std::mt19937_64& random) {
  comm::Delta& delta = request.delta;
  delta.text += piece.text;
  if (!piece.reasoning.empty() && request.shows_reasoning) {
    delta.reasoning = delta.reasoning.value_or("") + piece.reasoning;
  }
  for (model::ToolCallPiece& call : piece.tool_calls) {
    std::optional<std::string> id;
    if (call.name) id = fmt::format("call_{:016x}{:08x}", random(), static_cast<uint32_t>(random()));
    delta.tool_calls.push_back({call.index, std::move(id), std::move(call.name), std::move(call.arguments)});
  }
}

// Sorts a token's text into text, reasoning and tool calls.
void add_text(LiveRequest& request, const std::string& text, std::mt19937_64& random) {
  if (!request.parser) {
    request.delta.text += text;
    return;
  }
  const bool before = request.parser->in_reasoning();
  add_piece(request, request.parser->push(text), random);
  if (before || request.parser->in_reasoning()) ++request.reasoning_tokens;
}

// The end of the text; what the parser has held back with it.
void flush_text(LiveRequest& request, std::mt19937_64& random) {
  const std::string rest = request.text.flush();
  if (!request.parser) {
    request.delta.text += rest;
    return;
  }
  add_piece(request, request.parser->push(rest), random);
  add_piece(request, request.parser->flush(), random);
}

// With the first piece of the answer, where it is not to wait for the end.
void add_early_prompt(LiveRequest& request) {
  if (!std::exchange(request.early_prompt_logprobs, false)) return;
  request.delta.prompt =
      comm::PromptScores{std::exchange(request.prompt_logprobs, {}), std::exchange(request.prompt_ranks, {}),
                         std::exchange(request.prompt_top_logprobs, {})};
}

void set_reason(const LiveRequest& request, const engine::FinishEvent& finish, comm::Done& done) {
  if (request.prompt_only) {
    done.finish_reason = finish.reason == engine::FinishReason::abort ? "abort" : "length";
  } else if (const auto matched = request.text.matched()) {
    done.finish_reason = "stop";
    done.stop_reason = *matched;
  } else {
    constexpr const char* kReasons[] = {"stop", "length", "abort"};
    done.finish_reason = kReasons[static_cast<size_t>(finish.reason)];
    const auto& eos = request.eos_token_ids;
    if (finish.stop_token_id >= 0 && std::find(eos.begin(), eos.end(), finish.stop_token_id) == eos.end()) {
      done.stop_reason = finish.stop_token_id;
    }
  }
}

}  // namespace

void begin_answer(LiveRequest& live, const AskedRequest& asked, const PreparedRequest& prepared, uint64_t seed) {
  const std::vector<int32_t>& prompt = prepared.request.prompt;
  live.eos_token_ids = prepared.eos_token_ids;
  live.tenant = asked.tenant;
  if (prepared.reading) {
    live.parser.emplace(prepared.reading->parser);
    live.shows_reasoning = prepared.reading->shows_reasoning;
    live.calls_end_it = prepared.reading->calls_end_it;
  }
  live.wants_logprobs = asked.logprobs;
  live.prompt_only = prepared.prompt_only;
  live.seed = seed;
  live.delta.prompt_tokens = live.prompt_tokens = static_cast<int32_t>(prompt.size());
  live.early_prompt_logprobs = asked.early_prompt_logprobs;
  if (asked.prompt_logprobs) live.prompt_logprobs.resize(prompt.size());
  if (asked.prompt_top_logprobs) {
    live.prompt_ranks.resize(prompt.size());
    live.prompt_top_logprobs.resize(prompt.size());
  }
  if (asked.prompt_token_ids) live.prompt_token_ids = prompt;
  live.deadline = asked.deadline;
  live.time_limit = asked.time_limit;
}

void add_token(LiveRequest& request, const engine::TokenEvent& token, std::mt19937_64& random) {
  add_early_prompt(request);
  ++request.completion_tokens;
  add_text(request, request.text.push(token.token_id), random);
  request.delta.token_ids.push_back(token.token_id);
  if (!request.wants_logprobs) return;
  comm::TokenLogprobs logprobs;
  for (const engine::TokenLogprob& best : token.logprobs) logprobs.emplace_back(best.token_id, best.logprob);
  request.delta.logprobs.push_back(std::move(logprobs));
}

void add_prompt_logprobs(LiveRequest& request, const engine::PromptLogprobsEvent& event) {
  for (size_t i = 0; i < event.values.size(); ++i) {
    const size_t position = static_cast<size_t>(event.start) + i;
    if (position >= request.prompt_logprobs.size()) break;
    request.prompt_logprobs[position] = event.values[i];
    if (position >= request.prompt_ranks.size() || i >= event.ranks.size() || i >= event.best.size()) continue;
    request.prompt_ranks[position] = event.ranks[i];
    for (const engine::TokenLogprob& best : event.best[i]) {
      request.prompt_top_logprobs[position].emplace_back(best.token_id, best.logprob);
    }
  }
}

std::optional<int32_t> index_of(int32_t index, int32_t n) {
  return n > 1 ? std::optional(index) : std::nullopt;
}

std::vector<comm::Done> aborted(const std::string& name, uint64_t seed, int32_t n) {
  std::vector<comm::Done> answers(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) {
    comm::Done& done = answers[static_cast<size_t>(i)];
    done.id = name;
    done.finish_reason = "abort";
    done.seed = seed + static_cast<uint64_t>(i);
    done.index = index_of(i, n);
  }
  return answers;
}

bool says_nothing(const comm::Delta& delta) {
  return delta.text.empty() && delta.token_ids.empty() && !delta.reasoning && delta.tool_calls.empty() && !delta.prompt;
}

comm::Delta empty_delta(const LiveRequest& request) {
  comm::Delta delta;
  delta.id = request.name;
  delta.index = request.index;
  delta.prompt_tokens = request.prompt_tokens;
  return delta;
}

comm::Done finish_answer(LiveRequest& request, const engine::FinishEvent& finish, std::mt19937_64& random) {
  add_early_prompt(request);
  comm::Done done;
  done.id = request.name;
  done.index = request.index;
  set_reason(request, finish, done);
  if (!request.prompt_only) flush_text(request, random);
  if (done.finish_reason == "stop" && request.parser && request.parser->calls() > 0 && request.calls_end_it) {
    done.finish_reason = "tool_calls";
  }
  done.prompt_logprobs = std::move(request.prompt_logprobs);
  done.prompt_ranks = std::move(request.prompt_ranks);
  done.prompt_top_logprobs = std::move(request.prompt_top_logprobs);
  done.prompt_token_ids = std::move(request.prompt_token_ids);
  done.seed = request.seed;
  done.usage.prompt_tokens = request.prompt_tokens;
  done.usage.completion_tokens = request.completion_tokens;
  done.usage.reasoning_tokens = request.reasoning_tokens;
  done.usage.total_tokens = request.prompt_tokens + request.completion_tokens;
  done.usage.cached_tokens = finish.num_cached_tokens;
  return done;
}

}  // namespace lorikeet::actors
