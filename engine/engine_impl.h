// The engine's insides, shared by engine.cc and engine_steps.cc alone.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "engine/fair_queue.h"
#include "engine/kv_cache.h"
#include "engine/plan_step.h"
#include "engine/sequence.h"
#include "engine/sequence_pool.h"

namespace lorikeet::engine {

struct Engine::Impl {
  // A plan that the ranks have been given. Its sequences stay in memory while it is out.
  struct PlanInFlight {
    struct Row {
      Sequence* sequence;
      bool sample;
    };
    StepId step;
    std::vector<Row> rows;
  };

  explicit Impl(EngineConfig c);  // CHECKs that every limit is positive

  // engine.cc: what happens to requests.
  tl::expected<void, RequestError> check(const Request& request) const;
  tl::expected<void, RequestError> add(Request request);
  bool adapter_ready(SequenceId id, SlotId slot);
  void adapter_failed(SequenceId id, std::string message);
  void finish(SequenceId id, FinishReason reason);
  void ranks_lost(const std::string& why);
  void ask_leases(GroupId group);
  void finish(Sequence& sequence, FinishReason reason, int32_t stop_token_id);
  void fail(Sequence& sequence, RequestError error);
  void end(Sequence& sequence);
  void settle();
  void bury(Sequence& sequence);

  // engine_steps.cc: plans and results.
  std::optional<StepPlan> plan();
  Schedule make_schedule();
  void preempt(Sequence& sequence);
  void admit(Sequence& sequence, StepPlan& plan);
  void add_running(Sequence& sequence);
  void note_plan(int32_t num_adapters);
  void absorb(const StepResult& result);
  void absorb_row(Sequence& sequence, bool sampled, const RowResult& row);

  const EngineConfig config;
  KvCache kv;
  FairQueue queue;
  bool available = false;
  Epoch epoch;
  StepId last_step;
  uint64_t num_arrivals = 0, num_admissions = 0;

  SequencePool pool;
  std::unordered_map<SequenceId, SequencePool::Pointer> sequences;  // ended ones too, until they are buried
  // By admission; until settle() also those just ended. The view shows the policy the same sequences in the same order,
  // and is kept from plan to plan: with thousands of them, looking at each once more is what a plan costs.
  std::vector<Sequence*> running;
  std::vector<RunningSequence> running_view;
  std::vector<Sequence*> unsettled;           // ended, or ended and with a row less in flight, since the last settle()
  std::vector<SequenceId> finished_on_ranks;  // what the next plan tells the ranks to drop
  std::deque<PlanInFlight> in_flight;

  std::vector<Event> events;
  std::vector<AdapterCall> adapter_calls;
  EngineStats stats;

  // Kept between plans for their memory alone.
  std::vector<WaitingSequence> waiting_view;
  std::vector<Sequence*> candidates;   // what waiting_view shows
  std::vector<uint64_t> last_planned;  // [groups]: the plan that last had a row under the group's adapter
};

}  // namespace lorikeet::engine
