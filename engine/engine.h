// The serving logic as one plain object: requests and results go in, plans and events come out. It knows no threads,
// clocks, sockets or devices; the serving core owns one and calls it from one thread only.
//
//            add()                      plan()                       absorb(result)
//   Request -------> waiting ---------------------> running ---------------------------> finished
//                       ^   (lease, slot, blocks)      |   (eos, stop, length, cancel)
//                       |                              |
//                       +--------- preempted <---------+  (out of blocks, ranks lost, others wait for the slot: computed
//                                     |      ^               again later, from the prompt and the tokens emitted)
//             three losses are blamed |      | all others have ended: tried alone
//                                     v      |
//                                    set aside
//
// Up to `max_plans_in_flight` plans may be out before the first result is back: a decode row of a later plan takes the
// token that the ranks draw in the earlier one. Results come back in order. A token computed ahead for a sequence that
// has ended is dropped.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <unordered_set>
#include <vector>

#include "engine/engine_stats.h"
#include "engine/error.h"
#include "engine/events.h"
#include "engine/fair_queue.h"
#include "engine/ids.h"
#include "engine/kv_cache.h"
#include "engine/plan_step.h"
#include "engine/record_index.h"
#include "engine/record_pool.h"
#include "engine/request.h"
#include "engine/sequence.h"
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
  int32_t turn_tokens = 32;  // that a sequence gets before it gives way to others that wait for its adapter's slot
};

class Engine {
 public:
  // A request is set aside after so many losses that a rank caused itself while the request was being computed.
  static constexpr int32_t kMaxBlamedLosses = 3;

  explicit Engine(EngineConfig config);  // CHECKs that every limit is positive
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request, or says why not (too_long, queue_full, invalid_request; rank_lost while not available). With an
  // adapter, an AcquireAdapter follows.
  tl::expected<void, RequestError> add(Request request);

  // The answers to the AcquireAdapters of the present epoch; answers of an epoch that is over are the caller's to drop.
  // A request that has ended meanwhile releases its lease at once. False: the id is unknown, no ReleaseAdapter follows,
  // and the caller gives the lease back.
  bool adapter_ready(SequenceId id, SlotId slot);
  void adapter_failed(SequenceId id, std::string message);

  // wanted: others wait for a slot, and this adapter has to give up its own; false: no longer. Its running sequences go back
  // to the queue when they have had a turn, if the prefix cache has room for what they leave, and ask for a lease again. Its
  // other sequences go on as before. Ends when the ranks are lost.
  void give_way(const std::string& adapter, bool wanted) { queue_.set_gives_way(adapter, wanted); }

  // Ends a request from outside: the client went away, or the gateway saw a stop string. Gives FinishEvent{reason}.
  // Unknown ids are fine.
  void finish(SequenceId id, FinishReason reason);

  // The next plan to send to every rank; nullopt when nothing can be done now or enough plans are in flight.
  std::optional<StepPlan> plan();

  // The agreed result of the oldest plan in flight, which the caller has compared with it. CHECKs epoch and step.
  void absorb(StepResult result);

  // ranks_lost(): the ranks are gone. Everything in flight is forgotten, and what it would have left in the KV cache. Running
  // sequences keep their blocks, and will continue behind the last position whose plan was absorbed. plan() and add() do
  // nothing until start_epoch() makes the engine available again. An engine begins unavailable. start_epoch() CHECKs that it
  // is not available and that the epoch is a later one.
  void ranks_lost();
  void start_epoch(Epoch epoch);

  // While not available: the ranks' KV caches are gone, too, or not to be trusted. All sequences will be computed again from
  // their prompts and emitted tokens.
  void forget_kv();

  // While not available, once per loss at most: a rank caused the loss itself, perhaps through one of the requests that were
  // being computed. A request that was there at kMaxBlamedLosses such losses is set aside, and computed alone when all
  // others that are here now have ended. If it is blamed once more then, it fails with poison and `why`; if it gets a few
  // tokens, it is acquitted.
  void blame_requests(const std::string& why);

  bool available() const { return available_; }

  // While not available: the ranks of the next epoch hold another number of blocks. Requests that can no longer fit fail.
  void resize(int32_t num_blocks);

  // Later prompts share no KV block with what was computed before. Walks over all blocks.
  void reset_prefix_cache() { kv_.forget_prefixes(); }

  // Drains what has happened since the last call, in order.
  std::vector<Event> take_events() { return std::exchange(events_, {}); }
  // The sequences whose first rows are in plans made since the last call.
  std::vector<SequenceId> take_started() { return std::exchange(started_, {}); }
  std::vector<AdapterCall> take_adapter_calls() { return std::exchange(adapter_calls_, {}); }

  EngineStats stats() const;
  int32_t num_waiting() const { return stats_.waiting; }

 private:
  // A plan that the ranks have been given. Its sequences stay in memory while it is out.
  struct PlanInFlight {
    struct Row {
      Sequence* sequence;
      int32_t end;          // the position behind the row's last one
      uint32_t count : 31;  // of its positions
      uint32_t sample : 1;
    };
    StepId step;
    PrefixId mark;  // the latest prefix that had been published before the plan was made
    std::vector<Row> rows;
  };
  struct Running {
    uint64_t admission;
    Sequence* sequence;  // null: a gap, since it has ended after the last plan
  };

  // engine.cc: what happens to requests.
  tl::expected<void, RequestError> check(const Request& request) const;
  std::optional<RequestError> check_blocks(int64_t prompt_size, int64_t max_tokens, int32_t num_blocks) const;
  void ask_leases(GroupId group);
  void finish(Sequence& sequence, FinishReason reason, int32_t stop_token_id);
  void fail(Sequence& sequence, RequestError error);
  void fail_without_token(Sequence& sequence, int32_t position, bool is_its_own);
  void end(Sequence& sequence);
  void destroy_if_unused(Sequence& sequence);

  // engine_epochs.cc: ranks that come and go.
  void void_lease(Sequence& sequence);
  void stop(Sequence& sequence, int32_t absorbed, PrefixId mark);
  void drop_kept(Sequence& sequence);
  std::vector<Sequence*> by_arrival() const;
  void set_aside(Sequence& sequence);
  void begin_trial();
  void note_token_on_trial();
  bool trial_begins() const;  // as soon as nothing else runs
  bool trial_runs() const;

  // engine_steps.cc: plans and results.
  void list_candidates(size_t room);
  bool list_kept(size_t room);
  Schedule make_schedule();
  Schedule make_schedule_with_room();
  void preempt(Sequence& sequence);
  void end_turns();
  void give_lease_back(Sequence& sequence);
  void admit(Sequence& sequence, StepPlan& plan);
  void add_running(Sequence& sequence);
  void remove_running(const Sequence& sequence);
  void close_gaps();
  void note_plan(int32_t num_adapters);
  void absorb_row(Sequence& sequence, const PlanInFlight::Row& planned, RowResult& row, PromptResult* of_prompt);
  bool absorb_prompt(Sequence& sequence, PromptResult& result);

  EngineConfig config_;
  KvCache kv_;
  FairQueue queue_;
  bool available_ = false;
  Epoch epoch_;
  StepId last_step_;
  uint64_t num_arrivals_ = 0, num_admissions_ = 0;

  RecordPool<Sequence> pool_;
  struct IdOf {
    SequenceId operator()(const Sequence& sequence) const { return sequence.id(); }
  };
  RecordIndex<Sequence, IdOf> sequences_{pool_};  // ended ones too, until nobody names them
  // By admission. The view shows the policy the same sequences in the same order, and is kept from plan to plan: with
  // thousands of them, looking at each once more is what a plan costs. An end leaves a gap, which the next plan closes.
  std::vector<Running> running_;
  std::vector<RunningSequence> running_view_;
  size_t num_gaps_ = 0;
  std::vector<SequenceId> finished_on_ranks_;  // what the next plan tells the ranks to drop
  std::deque<PlanInFlight> in_flight_;
  std::map<uint64_t, Sequence*> kept_;  // by admission: in the queue, with positions computed before a loss

  // Of the last loss: whose rows were in flight, and whether they were alone because they were on trial.
  struct Suspect {
    SequenceId id;
    bool alone = false;
  };
  std::vector<Suspect> suspects_;
  std::map<uint64_t, Sequence*> set_aside_;      // by arrival; neither in the queue nor running
  std::unordered_set<SequenceId> before_trial_;  // that are to end before one of them is tried
  Sequence* on_trial_ = nullptr;                 // in the queue, or running alone
  int32_t trial_tokens_ = 0;                     // it has got so many

  std::vector<Event> events_;
  std::vector<SequenceId> started_;
  std::vector<AdapterCall> adapter_calls_;
  EngineStats stats_;

  // Kept between plans for their memory alone.
  std::vector<WaitingSequence> waiting_view_;
  std::vector<Sequence*> candidates_;   // what waiting_view_ shows
  std::vector<uint64_t> last_planned_;  // [groups]: the plan that last had a row under the group's adapter
};

}  // namespace lorikeet::engine
