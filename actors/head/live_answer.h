// What the engine says of a request, put together as its client reads it: text, reasoning, calls of tools,
// log-probabilities, why it has ended. `random` names the calls.
//
// Threads: one at a time for a request.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "actors/head/asked_request.h"
#include "actors/head/live_requests.h"
#include "actors/head/request_validation.h"
#include "comm/client/client_messages.h"
#include "engine/events.h"

namespace lorikeet::actors {

// What is kept of a request for its answer; seed: that the answer is drawn with.
void begin_answer(LiveRequest& live, const AskedRequest& asked, const PreparedRequest& prepared, uint64_t seed);

// A token that belongs to the answer; what its text shows is added to the request's delta, and with the first one what is
// known of the prompt's tokens where that is not to wait for the end.
void add_token(LiveRequest& request, const engine::TokenEvent& token, std::mt19937_64& random);

// Where they were asked for.
void add_prompt_logprobs(LiveRequest& request, const engine::PromptLogprobsEvent& event);

// What tells one of n answers from the others; none where there are no others.
std::optional<int32_t> index_of(int32_t index, int32_t n);

// The final answers to a request that was cancelled before it was admitted.
std::vector<comm::Done> aborted(const std::string& name, uint64_t seed, int32_t n);

// Whether there is nothing to be sent, and what the next pieces are added to.
bool says_nothing(const comm::Delta& delta);
comm::Delta empty_delta(const LiveRequest& request);

// The final answer; what was held back of the text is added to the delta, which goes out before it.
comm::Done finish_answer(LiveRequest& request, const engine::FinishEvent& finish, std::mt19937_64& random);

}  // namespace lorikeet::actors
