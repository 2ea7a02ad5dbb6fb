#include "actors/head/live_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

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

// What the text of a token turns out to be.
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

void add_token(LiveRequest& request, const engine::TokenEvent& token, std::mt19937_64& random) {
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

comm::Done finish_answer(LiveRequest& request, const engine::FinishEvent& finish, std::mt19937_64& random) {
  comm::Done done;
  done.id = request.name;
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
