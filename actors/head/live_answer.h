// What the engine says of a request, put together as its client reads it: text, reasoning, calls of tools,
// log-probabilities, why it has ended. `random` names the calls.
//
// Threads: one at a time for a request.
#pragma once

#include <random>

#include "actors/head/live_requests.h"
#include "comm/client/client_messages.h"
#include "engine/events.h"

namespace lorikeet::actors {

// A token that belongs to the answer; what its text shows is added to the request's delta.
void add_token(LiveRequest& request, const engine::TokenEvent& token, std::mt19937_64& random);

// Where they were asked for.
void add_prompt_logprobs(LiveRequest& request, const engine::PromptLogprobsEvent& event);

// The final answer; what was held back of the text is added to the delta, which goes out before it.
comm::Done finish_answer(LiveRequest& request, const engine::FinishEvent& finish, std::mt19937_64& random);

}  // namespace lorikeet::actors
