// What the head decides about requests and ranks, without threads, clocks, sockets or actors: calls come in, things to
// do come out. It owns every sequence, KV block and lease (in engine::Engine), the group's state and the plans in
// flight. Time is an argument; the scheduler actor carries out the effects, in their order.
//
// The group's states:
//
//             admit, loaded of all          ready of all
//   starting ----------------------> forming ------------> serving
//      ^                                |                     |
//      |                                | lose_group(): a rank died, hangs, lies, disagrees, or could not compute
//      |   start_epoch                  v                     v
//      `------------------------------ lost <-----------------'
//
// While the group is not serving, requests that arrive are held, and those that the engine has wait: both go on in the
// next epoch, the latter where they stopped, or from their prompts and the tokens that their clients have, so that a
// client sees a pause and nothing else. What ranks and the adapter cache still say of an epoch that is over is not heard.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/adapter_outcome.h"
#include "actors/head/grammar_book.h"
#include "actors/head/held_requests.h"
#include "actors/head/in_flight_plans.h"
#include "actors/head/pause_log.h"
#include "actors/head/rank_group.h"
#include "actors/head/rank_loss.h"
#include "actors/head/started_request.h"
#include "actors/wire/step_pace.h"
#include "actors/wire/step_totals.h"
#include "engine/engine.h"

namespace lorikeet::actors {

class ServingCore {
 public:
  using Id = engine::SequenceId;
  using TimePoint = InFlightPlans::TimePoint;

  struct Config {
    engine::EngineConfig engine;  // num_blocks: what the ranks hold, known when all have loaded
    int32_t ranks = 1;
    int32_t vocab_size = 0;
    uint64_t first_epoch = 1;
    std::chrono::milliseconds rank_timeout{30'000};
    std::chrono::milliseconds step_allowance{30'000};  // beside what its work takes (actors/wire/step_pace.h)
    model::StepCost step_cost{};                       // of a rank's steps
    bool on_gpu = false;
  };

  // What is to be done.
  struct FormGroup {  // tell all ranks to meet, with so many blocks each
    int32_t num_blocks = 0;
  };
  struct GroupServes {  // tell the adapter cache and the supervisor
    uint64_t epoch = 0;
  };
  struct GroupLost {  // fence the ranks; tell the adapter cache, which forgets all slots and leases, and the supervisor
    uint64_t epoch = 0;
    RankLoss loss;
  };
  struct SendToRanks {  // a grammar, or that it is not needed any more; before the plans that follow
    GroupOrder order;
  };
  struct SendPlan {  // to all ranks
    engine::StepPlan plan;
  };
  struct Resolve {  // claim the content that the name leads to: resolved() follows
    Id id;
    std::string name;
  };
  struct Unclaim {  // the request is over
    Id id;
    AdapterOutcome outcome = AdapterOutcome::none;
  };
  struct Acquire {  // a slot for a claimed content: acquired() follows
    Id id;
    std::string digest;
  };
  struct Release {  // the slot, or the question for it
    Id id;
    std::string digest;
  };
  struct Events {  // to the gateway
    std::vector<engine::Event> events;
    std::vector<StartedRequest> started = {};  // requests whose first rows were planned, since the last events
  };
  using Effect = std::variant<FormGroup, GroupServes, GroupLost, SendToRanks, SendPlan, Resolve, Unclaim, Acquire,
                              Release, Events>;

  explicit ServingCore(Config config);

  // ---- requests

  // The request's adapter is a name or empty, its grammar a text, which is sent to the ranks once and apart. Whatever
  // becomes of the request, Events say so.
  void submit(std::shared_ptr<engine::Request> request, TimePoint now);
  void finish(Id id, engine::FinishReason reason, TimePoint now);  // unknown ids are fine

  // The answers to Resolve and Acquire. error: not empty where it failed; `code` is the failure's then. A slot comes with
  // the epoch of its ranks. ranks_failed: not the adapter's fault; the group is lost, and the next epoch asks again.
  void resolved(Id id, const std::string& digest, const std::string& error, TimePoint now,
                engine::ErrorCode code = engine::ErrorCode::adapter_failed);
  void acquired(const Acquire& asked, uint64_t epoch, engine::SlotId slot, const std::string& error, bool ranks_failed,
                TimePoint now);

  // wanted: others wait for a slot, and the content has to give up its own (engine::Engine::give_way); else no longer.
  void give_way(uint64_t epoch, const std::string& digest, bool wanted, TimePoint now);

  // Later requests reuse nothing that was computed before.
  void reset_prefix_cache();

  // ---- ranks; of the present epoch alone

  Result<void> admit(int32_t rank, int32_t pid, uint64_t epoch, std::string host, std::string device);
  // A message that contradicts what the rank was asked, or what it said before, loses the group.
  void loaded(int32_t rank, const RankLoaded& loaded, TimePoint now);
  void ready(int32_t rank, TimePoint now);
  void grammar_compiled(int32_t rank, const GrammarCompiled& answer, TimePoint now);
  void result(int32_t rank, engine::StepResult result, TimePoint now);

  void lose_group(const RankLoss& loss, TimePoint now);  // once per epoch; later reasons are not heard
  // `why`: the last epoch ended, as the supervisor knows it. Ignored unless `epoch` is a later one. by_rank: a rank failed by
  // itself, for which requests are blamed (engine::Engine::blame_requests).
  void start_epoch(uint64_t epoch, const std::string& why, bool by_rank, bool doubts_kv, TimePoint now);
  void tick(TimePoint now);  // loses ranks that do not answer in time

  std::vector<Effect> take_effects() { return std::exchange(effects_, {}); }

  // ---- for the status

  const RankGroup& group() const { return group_; }
  const HeldRequests& held() const { return held_; }
  std::optional<engine::EngineStats> engine_stats() const;
  const StepTotals& step_totals() const { return step_totals_; }
  const PauseLog& pauses() const { return pauses_; }
  uint64_t plans_sent_ahead() const { return sent_ahead_; }
  int64_t kv_cache_tokens() const { return int64_t{num_blocks_} * config_.engine.block_size; }

 private:
  void start(std::shared_ptr<engine::Request> request);
  void fail_request(Id id, engine::ErrorCode code, std::string message);
  bool anybody_waits() const;
  void fit_engine(int32_t num_blocks);
  void pump(TimePoint now);
  void send_plans(TimePoint now);
  void send_grammars(TimePoint now);
  void take_what_the_engine_wants();
  void give_events();
  void end_claim(engine::Event& event);

  Config config_;
  RankGroup group_;
  std::optional<engine::Engine> engine_;  // since the first ranks have loaded; it outlives them
  int32_t num_blocks_ = 0;
  InFlightPlans in_flight_;
  StepPace pace_;
  uint64_t sent_ahead_ = 0;  // plans that were sent while an earlier one had no result
  StepTotals step_totals_;
  PauseLog pauses_;
  HeldRequests held_;
  GrammarBook grammars_;
  std::unordered_map<Id, std::string>
      claims_;  // of requests that may hold one in the adapter cache: the adapter's name
  std::vector<engine::Event> events_;
  std::vector<StartedRequest> started_;
  std::vector<Effect> effects_;
};

}  // namespace lorikeet::actors
