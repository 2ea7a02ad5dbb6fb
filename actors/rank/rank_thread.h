// The thread that does a rank's blocking work: loading, the way into the group, steps with their collectives. An
// event-based actor (actors/rank/worker.h) stands in front of it, so that the rank answers while a step runs or hangs.
//
//            load            form()              plan() ...
//   loading ------> loaded --------> stepping ------------> stepping
//      |              ^     |           |
//      `--> fatal     |     `-----------`--> failed (a peer is lost, or a plan was refused; told in a StepResult)
//                     |                        |
//                     `------------------------'
//                       leave(): the group is lost; weights, KV cache and model stay for the next epoch
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "actors/rank/rank_backend.h"
#include "actors/rank/step_executor.h"
#include "actors/wire/envelope.h"
#include "actors/wire/step_pace.h"
#include "actors/wire/wire.h"
#include "actors/wire/work_queue.h"
#include "engine/step_plan.h"

namespace lorikeet::actors {

// Threads: every method from any thread.
class RankThread {
 public:
  // Called on the rank's thread.
  struct Callbacks {
    std::function<void(Envelope)> to_scheduler;
    std::function<void(int done, int total)> loading;  // layers of the weights, one after the other
    std::function<void(std::shared_ptr<model::RankModel>, uint64_t epoch)> formed;  // before `ready` is sent
    std::function<void(uint64_t epoch)> left;       // nothing is done any more for epochs before this one
    std::function<void(const std::string&)> fatal;  // the rank cannot serve
  };
  struct Setup {
    int32_t rank = 0;
    uint64_t epoch = 0;
    int32_t block_size = 16;
    int32_t num_slots = 8;
    FindGrammar grammars = nullptr;  // called by the rank's thread
    int32_t vocab_size = 0;          // that grammars are compiled for
    ServerOptions options{};         // what a step may take
  };

  RankThread(Setup setup, std::shared_ptr<RankBackend> backend, Callbacks callbacks);
  ~RankThread();  // aborts what runs and waits for it
  RankThread(const RankThread&) = delete;
  RankThread& operator=(const RankThread&) = delete;

  // Both are queued, for the present epoch. Errors: too much is queued.
  Result<void> form(int32_t num_blocks, std::unique_ptr<comm::Rendezvous> store);
  Result<void> plan(std::vector<uint8_t> encoded);  // an engine::StepPlan
  void fence();                                     // the present epoch is over: ends a running collective

  // Begins another epoch: ends a running collective, drops what is queued, drops `what_ends`, and calls `left`. After that
  // announce() tells the head of the weights, in the new epoch.
  void leave(uint64_t epoch, std::shared_ptr<void> what_ends);
  void announce();

  // How long the present step has been running; nullopt: none is.
  std::optional<std::chrono::milliseconds> step_age() const;
  // Whether it has run for longer than it may (actors/wire/step_pace.h), and how long that is.
  bool step_is_overdue() const;
  std::chrono::milliseconds step_limit() const { return std::chrono::milliseconds(step_limit_ms_); }
  uint64_t steps_finished() const { return steps_finished_; }

 private:
  struct Form {
    uint64_t epoch = 0;
    int32_t num_blocks = 0;
    std::unique_ptr<comm::Rendezvous> store;
  };
  struct EncodedPlan {
    uint64_t epoch = 0;
    std::vector<uint8_t> bytes;
  };
  struct Leave {
    uint64_t epoch = 0;
    std::shared_ptr<void> what_ends;
  };
  struct Announce {
    uint64_t epoch = 0;
  };
  using Work = std::variant<Form, EncodedPlan, Leave, Announce>;

  void run();
  bool load();
  bool perform(Form& form);
  bool perform(const EncodedPlan& plan);
  bool perform(Leave& leave);
  bool perform(const Announce& announce);
  bool join(Form& form);
  void report_failure(engine::StepId step, std::string error, bool peer_failed);
  std::optional<Work> step_loop();
  std::optional<Work> next_work();
  bool begin(const EncodedPlan& plan);
  bool finish();
  bool guarded(engine::StepId step, const std::function<Result<void>()>& work);
  void send(const GroupReport& report);
  void send(const engine::StepResult& result);
  void send(EnvelopeStream stream, uint64_t step, std::vector<uint8_t> bytes);

  const Setup setup_;
  const std::shared_ptr<RankBackend> backend_;
  const Callbacks callbacks_;
  std::optional<RankLoaded> loaded_;
  uint64_t own_epoch_;         // under which the head is told things
  uint64_t formed_epoch_ = 0;  // that was joined last, or could not be
  std::optional<Work> next_;   // the work that ended a run of steps
  std::optional<StepExecutor> executor_;
  std::shared_ptr<model::RankModel> model_;
  struct Begun {
    engine::StepId step;
    StepPace::Floor floor;
  };
  void start_clock(const StepPace::Floor& floor);
  void stop_clock();

  std::optional<StepPace> pace_;  // since the weights are there
  std::deque<Begun> begun_;

  WorkQueue<Work> queue_;
  std::atomic<uint64_t> epoch_;               // the present one
  std::atomic<int64_t> step_limit_ms_{0};     // of the present step
  std::atomic<int64_t> step_started_ns_{0};   // 0: no step runs
  std::atomic<int64_t> step_deadline_ns_{0};  // likewise
  std::atomic<uint64_t> steps_finished_{0};
  std::thread thread_;
};

}  // namespace lorikeet::actors
