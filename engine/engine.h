// The serving logic as one plain object: requests and results go in, plans and events come out. It knows no threads,
// clocks, sockets or devices; the scheduler actor owns one and calls it from its own thread only.
//
//            add()                      plan()                       absorb(result)
//   Request -------> waiting ---------------------> running ---------------------------> finished
//                       ^   (lease, slot, blocks)      |   (eos, stop, length, cancel)
//                       |                              |
//                       +------- preempted <-----------+  (out of blocks: recomputed later from prompt + emitted
//                       tokens)
//
// Up to `max_plans_in_flight` plans may be out before the first result is back: a decode row of a later plan takes the
// token that the ranks draw in the earlier one. Results come back in order. A token computed ahead for a sequence that
// has ended is dropped.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <variant>
#include <vector>

#include "engine/error.h"
#include "engine/ids.h"
#include "engine/sampling_params.h"
#include "engine/step_plan.h"

namespace lorikeet::engine {

struct EngineConfig {
  int32_t max_model_len = 2048;           // positions: prompt + generated
  int32_t max_num_seqs = 256;             // sequences in one step
  int32_t max_num_batched_tokens = 2048;  // tokens in one step; longer prompts are prefilled in chunks
  int32_t max_num_queued_requests = 4096;
  int32_t block_size = 16;    // positions in a KV block
  int32_t num_blocks = 1024;  // blocks in the pool of each rank
  int32_t max_plans_in_flight = 2;
  bool enable_prefix_caching = true;
};

struct Request {
  SequenceId id;
  std::vector<int32_t> prompt;  // 1 .. max_model_len - 1 token ids
  std::string adapter;          // digest of the adapter's content; empty: the base model
  uint64_t cache_salt = 0;      // prefix blocks are shared only between requests of the same salt
  SamplingParams sampling;
};

enum class FinishReason : uint8_t { stop, length, abort };

// Events, in the order in which a request sees them: any number of PromptLogprobs, then TokenEvents, then one of
// FinishEvent and FailEvent, after which its id is forgotten.
struct PromptLogprobsEvent {
  SequenceId id;
  int32_t start = 0;  // values[i] belongs to the prompt token at position start + i (position 0 has none)
  std::vector<float> values;
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
};
using Event = std::variant<PromptLogprobsEvent, TokenEvent, FinishEvent, FailEvent>;

// What the engine wants of the adapter cache. A lease is asked for once per request and released once, when no plan in
// flight touches the adapter any more. Of an adapter's waiting requests only the first few (FairQueue::kMaxLeasesAhead)
// hold or ask for one, so that a flood does not pin an adapter for longer than its turn. The cache does its part when a
// new lease on a resident adapter does not overtake one that waits for a slot.
struct AcquireAdapter {
  SequenceId id;
  std::string digest;
};
struct ReleaseAdapter {
  SequenceId id;
  std::string digest;
};
using AdapterCall = std::variant<AcquireAdapter, ReleaseAdapter>;

struct EngineStats {
  int32_t waiting = 0, running = 0, preempted = 0;
  int32_t blocks_total = 0, blocks_free = 0;  // free: in no sequence's table (cached content may still be in them)
  uint64_t plans = 0, preemptions = 0, prefix_hit_tokens = 0, prompt_tokens = 0, generated_tokens = 0;
  int32_t plans_in_flight = 0, max_plans_in_flight_seen = 0;
  int32_t max_adapters_in_a_plan = 0;  // distinct, the base model not counted

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("waiting", s.waiting);
    visit("running", s.running);
    visit("preempted", s.preempted);
    visit("blocks_total", s.blocks_total);
    visit("blocks_free", s.blocks_free);
    visit("plans", s.plans);
    visit("preemptions", s.preemptions);
    visit("prefix_hit_tokens", s.prefix_hit_tokens);
    visit("prompt_tokens", s.prompt_tokens);
    visit("generated_tokens", s.generated_tokens);
    visit("plans_in_flight", s.plans_in_flight);
    visit("max_plans_in_flight_seen", s.max_plans_in_flight_seen);
    visit("max_adapters_in_a_plan", s.max_adapters_in_a_plan);
  }
};

class Engine {
 public:
  explicit Engine(EngineConfig config);
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  // Queues a request, or says why not (too_long, queue_full, invalid_request). With an adapter, an AcquireAdapter
  // follows.
  tl::expected<void, RequestError> add(Request request);

  // The answers to AcquireAdapter. A request that has ended meanwhile releases its lease at once. False: the id is
  // unknown, no ReleaseAdapter follows, and the caller gives the lease back.
  bool adapter_ready(SequenceId id, SlotId slot);
  void adapter_failed(SequenceId id, std::string message);

  // Ends a request from outside: the client went away, or the gateway saw a stop string. Gives FinishEvent{reason}.
  // Unknown ids are fine.
  void finish(SequenceId id, FinishReason reason);

  // The next plan to send to every rank; nullopt when nothing can be done now or enough plans are in flight.
  std::optional<StepPlan> plan();

  // The agreed result of the oldest plan in flight. CHECKs epoch and step.
  void absorb(const StepResult& result);

  // The ranks are gone, and their memory: every request, running or waiting, fails with rank_lost, everything in flight
  // is forgotten, and add() refuses until start_epoch makes the engine available again. An engine begins unavailable.
  // start_epoch CHECKs that it is not available and that the epoch is a later one.
  void ranks_lost(const std::string& why);
  void start_epoch(Epoch epoch);
  bool available() const;

  // Drains what has happened since the last call, in order.
  std::vector<Event> take_events();
  std::vector<AdapterCall> take_adapter_calls();

  EngineStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet::engine
