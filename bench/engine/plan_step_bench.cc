// What the scheduler costs a decode step, at a steady number of running sequences: requests end and are replaced,
// blocks are taken, published and evicted, results of every row come back. Time per iteration is that of Engine::plan()
// alone. Beside it: absorb() with its events, and the floor, which is writing the same plan's rows and nothing else.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/plan_step.h"
#include "engine/step_memory.h"

namespace lorikeet::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Workload {
 public:
  // `queued` more requests than may run wait for blocks, over `num_adapters` adapters.
  Workload(int32_t num_sequences, int32_t queued, int32_t num_adapters)
      : num_live_wanted_(num_sequences + queued),
        num_adapters_(num_adapters),
        engine_(config_for(num_sequences, queued)) {
    keep_step_memory();  // as the head does
    engine_.start_epoch(Epoch(1));
    // Until the first to come have long ended.
    for (int i = 0; i < 600; ++i) step();
  }

  // One plan made and the oldest of two in flight answered, as in service.
  void step() {
    replace_ended();
    while (in_flight_.size() < 2) {
      const auto start = Clock::now();
      auto plan = engine_.plan();
      plan_seconds_ = seconds_since(start);
      if (!plan) break;
      in_flight_.push_back(std::move(*plan));
    }
    const StepPlan plan = std::move(in_flight_.front());
    in_flight_.pop_front();
    StepResult result;
    result.epoch = plan.epoch;
    result.step = plan.step;
    result.rows.resize(plan.rows.size());
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      result.rows[i].id = plan.rows[i].id;
      if (plan.rows[i].sample) result.rows[i].token_id = static_cast<int32_t>(random_() % 150000);
    }
    const auto start = Clock::now();
    engine_.absorb(std::move(result));
    const std::vector<Event> events = engine_.take_events();
    absorb_seconds_ = seconds_since(start);
    for (const Event& event : events) num_live_ -= std::holds_alternative<FinishEvent>(event);
    last_rows_ = plan.rows;
  }

  // Ends all that run, as when a client with many requests goes away; with the events and the plan that follows, which
  // has nothing to do but to clear up. Returns seconds.
  double cancel_all() {
    const auto start = Clock::now();
    for (const StepRow& row : last_rows_) engine_.finish(row.id, FinishReason::abort);
    const std::vector<Event> events = engine_.take_events();
    while (engine_.plan()) {
    }
    const double seconds = seconds_since(start);
    if (events.size() + 1000 < last_rows_.size()) std::abort();  // some had ended by themselves
    return seconds;
  }

  // Writing the rows of the last plan.
  double floor_seconds() const {
    const auto start = Clock::now();
    std::vector<StepRow> rows;
    rows.reserve(last_rows_.size());
    for (const StepRow& row : last_rows_) rows.push_back(row);
    benchmark::DoNotOptimize(rows.data());
    return seconds_since(start);
  }

  double plan_seconds() const { return plan_seconds_; }      // of the last step
  double absorb_seconds() const { return absorb_seconds_; }  // of the last step
  size_t rows_in_last_plan() const { return last_rows_.size(); }
  EngineStats stats() const { return engine_.stats(); }

 private:
  static EngineConfig config_for(int32_t num_sequences, int32_t queued) {
    EngineConfig config;
    config.max_model_len = 4096;
    config.max_num_seqs = num_sequences + queued / 2;
    config.max_num_batched_tokens = std::max(2048, 2 * config.max_num_seqs);
    config.max_num_queued_requests = num_sequences + queued;
    // A request's blocks are 48 at the most and about 18 on average while it runs.
    config.num_blocks = num_sequences * (queued > 0 ? 18 : 48);
    return config;
  }

  // A system prompt shared by the requests of an adapter, and a question of one's own; answers of all lengths.
  void replace_ended() {
    for (; num_live_ < num_live_wanted_; ++num_live_) {
      Request request;
      request.id = SequenceId(++num_requests_);
      request.prompt.resize(static_cast<size_t>(64 + random_() % 192));
      for (size_t i = 0; i < request.prompt.size(); ++i) {
        request.prompt[i] = static_cast<int32_t>(i < 64 ? i : random_() % 150000);
      }
      request.sampling.max_tokens = static_cast<int32_t>(64 + random_() % 448);
      request.sampling.stop_token_ids = {151645, 151643};
      if (num_adapters_ > 0) {
        const auto adapter = static_cast<int32_t>(random_() % static_cast<uint64_t>(num_adapters_));
        request.adapter = "sha256 of adapter " + std::to_string(adapter);
      }
      if (!engine_.add(std::move(request))) std::abort();
    }
    for (const AdapterCall& call : engine_.take_adapter_calls()) {
      if (const auto* acquire = std::get_if<AcquireAdapter>(&call)) engine_.adapter_ready(acquire->id, SlotId(0));
    }
  }

  const int32_t num_live_wanted_, num_adapters_;
  Engine engine_;
  std::mt19937_64 random_{20261124};
  std::deque<StepPlan> in_flight_;
  std::vector<StepRow> last_rows_;
  int32_t num_live_ = 0;
  uint64_t num_requests_ = 0;
  double plan_seconds_ = 0, absorb_seconds_ = 0;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void run(benchmark::State& state, Workload& workload) {
  std::vector<double> plan_us, absorb_us, floor_us, rows;
  for (auto _ : state) {
    workload.step();
    state.SetIterationTime(workload.plan_seconds());
    plan_us.push_back(workload.plan_seconds() * 1e6);
    absorb_us.push_back(workload.absorb_seconds() * 1e6);
    floor_us.push_back(workload.floor_seconds() * 1e6);
    rows.push_back(static_cast<double>(workload.rows_in_last_plan()));
  }
  state.counters["plan_us"] = median(plan_us);
  state.counters["absorb_us"] = median(absorb_us);
  state.counters["floor_us"] = median(floor_us);
  state.counters["ns_per_row"] = median(plan_us) * 1e3 / median(rows);
  state.counters["rows"] = median(rows);
  const EngineStats stats = workload.stats();
  state.counters["waiting"] = stats.waiting + stats.preempted;
  state.counters["preemptions"] = static_cast<double>(stats.preemptions);
}

// Everyone runs who is there.
void engine_steady(benchmark::State& state) {
  Workload workload(static_cast<int32_t>(state.range(0)), 0, 0);
  run(state, workload);
}
BENCHMARK(engine_steady)
    ->Arg(256)
    ->Arg(1024)
    ->Arg(4096)
    ->UseManualTime()
    ->Iterations(2000)
    ->Unit(benchmark::kMicrosecond);

// Twice as many are there as the blocks allow, under 16 adapters: each step looks at the queue and who is to be let in.
void engine_overloaded(benchmark::State& state) {
  const auto num_sequences = static_cast<int32_t>(state.range(0));
  Workload workload(num_sequences, num_sequences, 16);
  run(state, workload);
}
BENCHMARK(engine_overloaded)
    ->Arg(256)
    ->Arg(1024)
    ->Arg(4096)
    ->UseManualTime()
    ->Iterations(2000)
    ->Unit(benchmark::kMicrosecond);

void cancel_all(benchmark::State& state) {
  for (auto _ : state) {
    Workload workload(static_cast<int32_t>(state.range(0)), 0, 0);
    state.SetIterationTime(workload.cancel_all());
  }
}
BENCHMARK(cancel_all)->Arg(256)->Arg(1024)->Arg(4096)->UseManualTime()->Iterations(5)->Unit(benchmark::kMillisecond);

// The policy alone, every sequence decoding. Its floor is writing its rows.
void policy(benchmark::State& state) {
  const auto num_sequences = static_cast<size_t>(state.range(0));
  const std::vector<BlockId> table(40);
  const std::vector<int64_t> served(1);
  const std::vector<int32_t> reference_counts(1, 1);
  std::vector<RunningSequence> running;
  for (size_t i = 0; i < num_sequences; ++i) {
    running.push_back({GroupId(0), 1, static_cast<int32_t>(600 + i % 41), table});
  }
  SchedulerView view;
  view.running = running;
  view.served = served;
  view.reference_counts = reference_counts;
  view.free_blocks = static_cast<int32_t>(num_sequences);
  const auto limit = static_cast<int32_t>(num_sequences);
  for (auto _ : state) benchmark::DoNotOptimize(plan_step(view, {limit, limit, 16}));
}
BENCHMARK(policy)->Arg(256)->Arg(1024)->Arg(4096)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lorikeet::engine
