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

// Fills in what a request's answer needs; seed: with which it is drawn.
void begin_answer(LiveRequest& live, const AskedRequest& asked, const PreparedRequest& prepared, uint64_t seed);

// Adds a token of the answer: its text goes into the request's delta. With the first token go the prompt's
// log-probabilities, where the client wants them early.
void add_token(LiveRequest& request, const engine::TokenEvent& token, std::mt19937_64& random);

// Does nothing where they were not asked for.
void add_prompt_logprobs(LiveRequest& request, const engine::PromptLogprobsEvent& event);

// The index that the client sees of one of n answers; none where n is 1.
std::optional<int32_t> index_of(int32_t index, int32_t n);

// The final answers to a request that was cancelled before it was admitted.
std::vector<comm::Done> aborted(const std::string& name, uint64_t seed, int32_t n);

// Whether there is nothing to be sent.
bool says_nothing(const comm::Delta& delta);
comm::Delta empty_delta(const LiveRequest& request);

// The final answer; what was held back of the text is added to the delta, which goes out before it.
comm::Done finish_answer(LiveRequest& request, const engine::FinishEvent& finish, std::mt19937_64& random);

}  // namespace lorikeet::actors
