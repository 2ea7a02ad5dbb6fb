// What the engine tells the clients of its requests, and what it asks of the adapter cache.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/error.h"
#include "engine/ids.h"
#include "engine/request.h"
#include "engine/step_plan.h"

namespace lorikeet::engine {

// Events, in the order in which a request sees them: any number of PromptLogprobs, then TokenEvents, then one of
// FinishEvent and FailEvent, after which its id is forgotten.
struct PromptLogprobsEvent {
  SequenceId id;
  int32_t start = 0;  // values[i] belongs to the prompt token at position start + i (position 0 has none)
  std::vector<float> values;
  std::vector<int32_t> ranks = {};  // these two as PromptResult has them
  std::vector<std::vector<TokenLogprob>> best = {};
};
struct TokenEvent {
  SequenceId id;
  int32_t token_id = 0;
  std::vector<TokenLogprob> logprobs;
};
struct FinishEvent {
  SequenceId id;
  FinishReason reason = FinishReason::stop;
  int32_t stop_token_id = -1;     // the stop id that ended it; -1 otherwise. That token was still a TokenEvent.
  int32_t num_cached_tokens = 0;  // prompt tokens taken from the prefix cache
};
struct FailEvent {
  SequenceId id;
  RequestError error;
  bool is_its_own = false;  // no_token: the request forbids every token
};

// Holds a rare, large event apart, so that the common ones, of which a step has thousands, stay small. Copies share it.
template <class Rare>
struct Boxed {
  Boxed(Rare rare) : id(rare.id), event(std::make_shared<const Rare>(std::move(rare))) {}  // NOLINT: stands for it
  operator const Rare&() const { return *event; }                                          // NOLINT: the same

  SequenceId id;
  std::shared_ptr<const Rare> event;
};
using Event = std::variant<TokenEvent, Boxed<PromptLogprobsEvent>, FinishEvent, Boxed<FailEvent>>;

// What the engine asks of the adapter cache. A lease is asked for once per request and epoch, and again after each turn in a
// slot that others waited for (Engine::give_way). It is released once, when no plan in flight touches the adapter any
// more; leases that are held when the ranks are lost are void and not released. Of an adapter's waiting requests only the
// first few (FairQueue::kMaxLeasesAhead) hold or ask for one, so that a flood does not pin an adapter for longer than its
// turn. The cache's part is that a new lease on a resident adapter does not overtake one that waits for a slot.
struct AcquireAdapter {
  SequenceId id;
  std::string digest;
};
struct ReleaseAdapter {  // gives the lease back, or takes the question back where there is no answer yet
  SequenceId id;
  std::string digest;
};
using AdapterCall = std::variant<AcquireAdapter, ReleaseAdapter>;

}  // namespace lorikeet::engine
