#include "engine/engine.h"

#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <utility>

#include "engine/fair_queue.h"
#include "engine/kv_cache.h"
#include "engine/plan_step.h"
#include "engine/sequence.h"

namespace lorikeet::engine {
namespace {

constexpr size_t kPrefetchAhead = 8;  // sequences

EngineConfig checked(EngineConfig config) {
  CHECK_GT(config.max_model_len, 1);
  CHECK_GT(config.max_num_seqs, 0);
  CHECK_GT(config.max_num_batched_tokens, 0);
  CHECK_GT(config.block_size, 0);
  CHECK_GT(config.num_blocks, 0);
  CHECK_GT(config.max_plans_in_flight, 0);
  // Every running sequence gets its token in every step.
  config.max_num_seqs = std::min(config.max_num_seqs, config.max_num_batched_tokens);
  return config;
}

tl::unexpected<RequestError> refuse(ErrorCode code, std::string message) {
  return tl::unexpected<RequestError>(RequestError{code, std::move(message)});
}

}  // namespace

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

  explicit Impl(EngineConfig c)
      : config(checked(c)), kv(config.num_blocks, config.block_size, config.enable_prefix_caching) {}

  tl::expected<void, RequestError> check(const Request& request) const;
  tl::expected<void, RequestError> add(Request request);
  void adapter_ready(SequenceId id, SlotId slot);
  void adapter_failed(SequenceId id, std::string message);
  void finish(SequenceId id, FinishReason reason);
  void ask_leases(GroupId group);

  void finish(Sequence& sequence, FinishReason reason, int32_t stop_token_id);
  void fail(Sequence& sequence, RequestError error);
  void end(Sequence& sequence);
  void settle();
  void bury(Sequence& sequence);

  std::optional<StepPlan> plan();
  Schedule make_schedule();
  void preempt(Sequence& sequence);
  void admit(Sequence& sequence, StepPlan& plan);
  void note_plan();

  void absorb(const StepResult& result);
  void absorb_row(Sequence& sequence, bool sampled, const RowResult& row);
  void ranks_lost(const std::string& why);

  const EngineConfig config;
  KvCache kv;
  FairQueue queue;
  bool available = false;
  Epoch epoch;
  StepId last_step;
  uint64_t num_arrivals = 0, num_admissions = 0;

  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences;  // ended ones too, until they are buried
  std::vector<Sequence*> running;             // by admission; until settle() also those just ended
  std::vector<Sequence*> unsettled;           // ended, or ended and with a row less in flight, since the last settle()
  std::vector<SequenceId> finished_on_ranks;  // what the next plan tells the ranks to drop
  std::deque<PlanInFlight> in_flight;

  std::vector<Event> events;
  std::vector<AdapterCall> adapter_calls;
  EngineStats stats;

  // Kept between plans for their memory alone.
  std::vector<RunningSequence> running_view;
  std::vector<WaitingSequence> waiting_view;
  std::vector<Sequence*> candidates;    // what waiting_view shows
  std::vector<GroupId> groups_in_plan;  // of rows under an adapter
};

// ---- requests ----

tl::expected<void, RequestError> Engine::Impl::check(const Request& request) const {
  if (!available) return refuse(ErrorCode::rank_lost, "the ranks are not available at the moment");
  if (sequences.contains(request.id)) {
    return refuse(ErrorCode::internal, fmt::format("request id {} is already in use", request.id.value()));
  }
  if (request.prompt.empty()) return refuse(ErrorCode::invalid_request, "the prompt is empty");
  const int64_t max_tokens = request.sampling.max_tokens;
  if (max_tokens < 1) {
    return refuse(ErrorCode::invalid_request, fmt::format("max_tokens is {}, but must be at least 1", max_tokens));
  }
  const auto prompt_size = static_cast<int64_t>(request.prompt.size());
  if (prompt_size + max_tokens > config.max_model_len) {
    return refuse(ErrorCode::too_long,
                  fmt::format("the prompt has {} tokens and max_tokens is {}, but the context holds {} in all",
                              prompt_size, max_tokens, config.max_model_len));
  }
  // The last token is emitted, never computed. No overflow: both are at most max_model_len.
  const int32_t blocks = blocks_for(static_cast<int32_t>(prompt_size + max_tokens - 1), config.block_size);
  if (blocks > config.num_blocks) {
    return refuse(
        ErrorCode::too_long,
        fmt::format("a prompt of {} tokens with max_tokens {} needs {} KV blocks of {} tokens, but there are {}",
                    prompt_size, max_tokens, blocks, config.block_size, config.num_blocks));
  }
  if (stats.waiting >= config.max_num_queued_requests) {
    return refuse(ErrorCode::queue_full, fmt::format("{} requests are already waiting", stats.waiting));
  }
  return {};
}

tl::expected<void, RequestError> Engine::Impl::add(Request request) {
  if (auto passed = check(request); !passed) return passed;
  const SequenceId id = request.id;
  const GroupId group = queue.join(request.adapter);
  const PrefixId root = kv.open_root(request.adapter, request.cache_salt);
  auto sequence = std::make_unique<Sequence>(std::move(request), ++num_arrivals, group, root);
  queue.push(*sequence);
  sequences.emplace(id, std::move(sequence));
  ++stats.waiting;
  ask_leases(group);
  return {};
}

void Engine::Impl::ask_leases(GroupId group) {
  if (!available) return;
  for (const Sequence* sequence : queue.ask_leases(group)) {
    adapter_calls.push_back(AcquireAdapter{sequence->id(), sequence->adapter()});
  }
}

void Engine::Impl::adapter_ready(SequenceId id, SlotId slot) {
  const auto found = sequences.find(id);
  if (found == sequences.end()) return;
  Sequence& sequence = *found->second;
  sequence.hold_lease(slot);
  if (sequence.state() == SequenceState::ended) bury(sequence);
}

void Engine::Impl::adapter_failed(SequenceId id, std::string message) {
  const auto found = sequences.find(id);
  if (found == sequences.end()) return;
  Sequence& sequence = *found->second;
  sequence.lose_lease();
  if (sequence.state() == SequenceState::ended) {
    bury(sequence);
  } else {
    fail(sequence, {ErrorCode::adapter_failed, std::move(message)});
    settle();
  }
}

void Engine::Impl::finish(SequenceId id, FinishReason reason) {
  const auto found = sequences.find(id);
  if (found == sequences.end() || found->second->state() == SequenceState::ended) return;
  finish(*found->second, reason, -1);
  settle();
}

void Engine::Impl::finish(Sequence& sequence, FinishReason reason, int32_t stop_token_id) {
  events.emplace_back(FinishEvent{sequence.id(), reason, stop_token_id, sequence.num_cached_tokens()});
  end(sequence);
}

void Engine::Impl::fail(Sequence& sequence, RequestError error) {
  events.emplace_back(FailEvent{sequence.id(), std::move(error)});
  end(sequence);
}

void Engine::Impl::end(Sequence& sequence) {
  switch (sequence.state()) {
    case SequenceState::running:
      kv.release(sequence);
      finished_on_ranks.push_back(sequence.id());
      break;
    case SequenceState::waiting:
      queue.remove(sequence);
      --stats.waiting;
      break;
    case SequenceState::preempted:
      queue.remove(sequence);
      --stats.preempted;
      break;
    case SequenceState::ended:
      break;
  }
  sequence.end();
  unsettled.push_back(&sequence);
}

// Clears up after sequences that have ended: all at once, since many may end in one step.
void Engine::Impl::settle() {
  if (unsettled.empty()) return;
  std::erase_if(running, [](const Sequence* sequence) { return sequence->state() == SequenceState::ended; });
  for (Sequence* sequence : unsettled) {
    ask_leases(sequence->group());
    bury(*sequence);
  }
  unsettled.clear();
}

// Destroys an ended sequence and gives its lease back, once no plan and no answer of the adapter cache can name it.
void Engine::Impl::bury(Sequence& sequence) {
  CHECK(sequence.state() == SequenceState::ended);
  if (sequence.rows_in_flight() > 0 || sequence.lease() == LeaseState::asked) return;
  if (sequence.lease() == LeaseState::held) adapter_calls.push_back(ReleaseAdapter{sequence.id(), sequence.adapter()});
  queue.leave(sequence.group());
  kv.close_root(sequence.root());
  sequences.erase(sequence.id());
}

// ---- plans ----

Schedule Engine::Impl::make_schedule() {
  running_view.clear();
  for (size_t i = 0; i < running.size(); ++i) {
    if (i + kPrefetchAhead < running.size()) running[i + kPrefetchAhead]->prefetch();
    const Sequence& sequence = *running[i];
    running_view.push_back({sequence.group(), sequence.remaining(), sequence.num_computed(), sequence.table().blocks});
  }
  waiting_view.clear();
  candidates.clear();
  if (const size_t room = static_cast<size_t>(config.max_num_seqs) - running.size(); room > 0) {
    queue.list_candidates(room, waiting_view, candidates);
  }
  SchedulerView view;
  view.running = running_view;
  view.waiting = waiting_view;
  view.served = queue.served();
  view.reference_counts = kv.reference_counts();
  view.free_blocks = kv.num_free();
  view.prefix_hits = [this](size_t i) { return kv.prefix_hits(*candidates[i]); };
  return plan_step(view, {config.max_num_seqs, config.max_num_batched_tokens, config.block_size});
}

void Engine::Impl::preempt(Sequence& sequence) {
  kv.release(sequence);
  sequence.preempt();
  finished_on_ranks.push_back(sequence.id());
  queue.push(sequence);
  ++stats.preempted;
  ++stats.preemptions;
}

// Starts a sequence with its prefix hits. Its other blocks are taken when every admitted one has its hits, lest one's
// new block be another's hit.
void Engine::Impl::admit(Sequence& sequence, StepPlan& plan) {
  const bool is_first = sequence.state() == SequenceState::waiting;
  queue.remove(sequence);
  const int32_t num_cached = kv.share_prefix(sequence);
  plan.starts.push_back(sequence.start(num_admissions + 1, num_cached));
  if (is_first) {
    ++num_admissions;
    --stats.waiting;
    stats.prompt_tokens += static_cast<uint64_t>(sequence.prompt_size());
    stats.prefix_hit_tokens += static_cast<uint64_t>(num_cached);
  } else {
    --stats.preempted;
  }
  // One that was preempted takes its old place.
  running.insert(std::ranges::upper_bound(running, sequence.admission(), {}, &Sequence::admission), &sequence);
  ask_leases(sequence.group());
}

std::optional<StepPlan> Engine::Impl::plan() {
  if (!available || in_flight.size() >= static_cast<size_t>(config.max_plans_in_flight)) return std::nullopt;
  const Schedule schedule = make_schedule();
  // The policy names sequences by their place before anything moves.
  std::vector<Sequence*> planned;
  planned.reserve(schedule.rows.size());
  for (const ScheduledRow& row : schedule.rows) {
    planned.push_back(row.is_new ? candidates[static_cast<size_t>(row.index)]
                                 : running[static_cast<size_t>(row.index)]);
  }
  for (const int32_t index : schedule.preempted) preempt(*running[static_cast<size_t>(index)]);
  running.resize(running.size() - schedule.preempted.size());
  if (planned.empty()) {
    CHECK(!running.empty() || candidates.empty()) << "nothing runs, and the head of the queue cannot";
    return std::nullopt;
  }

  StepPlan plan;
  PlanInFlight record;
  for (size_t i = 0; i < planned.size(); ++i) {
    if (schedule.rows[i].is_new) admit(*planned[i], plan);
  }
  plan.rows.reserve(planned.size());
  record.rows.reserve(planned.size());
  for (size_t i = 0; i < planned.size(); ++i) {
    if (i + kPrefetchAhead < planned.size()) planned[i + kPrefetchAhead]->prefetch();
    Sequence& sequence = *planned[i];
    const auto [index, count, is_new] = schedule.rows[i];
    const std::vector<BlockId>& blocks = sequence.table().blocks;
    const size_t num_known = is_new ? 0 : blocks.size();
    kv.extend(sequence, is_new ? sequence.num_tokens() : sequence.num_computed() + count);
    if (blocks.size() > num_known) {
      plan.blocks.push_back({sequence.id(), {blocks.begin() + static_cast<ptrdiff_t>(num_known), blocks.end()}});
    }
    plan.rows.push_back(sequence.plan_row(count));
    record.rows.push_back({&sequence, plan.rows.back().sample});
    kv.publish(sequence);
    queue.charge(sequence.group(), sequence.take_uncharged());
    if (sequence.lease() == LeaseState::held) groups_in_plan.push_back(sequence.group());
  }

  last_step = StepId(last_step.value() + 1);
  plan.epoch = epoch;
  plan.step = record.step = last_step;
  plan.finished = std::move(finished_on_ranks);
  finished_on_ranks.clear();
  in_flight.push_back(std::move(record));
  note_plan();
  return plan;
}

void Engine::Impl::note_plan() {
  ++stats.plans;
  stats.max_plans_in_flight_seen = std::max(stats.max_plans_in_flight_seen, static_cast<int32_t>(in_flight.size()));
  std::ranges::sort(groups_in_plan);
  const auto repeated = std::ranges::unique(groups_in_plan);
  const auto num_distinct = static_cast<int32_t>(repeated.begin() - groups_in_plan.begin());
  stats.max_adapters_in_a_plan = std::max(stats.max_adapters_in_a_plan, num_distinct);
  groups_in_plan.clear();
}

// ---- results ----

void Engine::Impl::absorb(const StepResult& result) {
  CHECK(!in_flight.empty()) << "a result of step " << result.step.value() << ", but no plan is in flight";
  CHECK_EQ(result.epoch.value(), epoch.value());
  CHECK_EQ(result.step.value(), in_flight.front().step.value());
  CHECK_EQ(result.error, "");
  CHECK_EQ(result.rows.size(), in_flight.front().rows.size());
  const PlanInFlight plan = std::move(in_flight.front());
  in_flight.pop_front();
  events.reserve(events.size() + plan.rows.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    if (i + 2 * kPrefetchAhead < plan.rows.size()) plan.rows[i + 2 * kPrefetchAhead].sequence->prefetch();
    if (i + kPrefetchAhead < plan.rows.size()) plan.rows[i + kPrefetchAhead].sequence->prefetch_for_token();
    Sequence& sequence = *plan.rows[i].sequence;
    CHECK_EQ(result.rows[i].id.value(), sequence.id().value());
    sequence.row_returned();
    if (sequence.state() == SequenceState::ended) {
      unsettled.push_back(&sequence);
    } else {
      absorb_row(sequence, plan.rows[i].sample, result.rows[i]);
    }
  }
  settle();
}

void Engine::Impl::absorb_row(Sequence& sequence, bool sampled, const RowResult& row) {
  if (!row.prompt_logprobs.empty()) {
    auto event = sequence.take_prompt_logprobs(row.prompt_logprobs_start, row.prompt_logprobs);
    if (!event.values.empty()) events.emplace_back(std::move(event));
  }
  if (!sampled) return;
  CHECK_GE(row.token_id, 0) << "sequence " << row.id.value() << " was to draw a token";
  events.emplace_back(TokenEvent{row.id, row.token_id, row.logprobs});
  ++stats.generated_tokens;
  const Sequence::Outcome outcome = sequence.append_token(row.token_id);
  if (outcome.complete) finish(sequence, outcome.reason, outcome.stop_token_id);
}

void Engine::Impl::ranks_lost(const std::string& why) {
  available = false;
  in_flight.clear();
  std::vector<Sequence*> by_arrival;
  for (const auto& [id, sequence] : sequences) by_arrival.push_back(sequence.get());
  std::ranges::sort(by_arrival, {}, &Sequence::arrival);
  for (Sequence* sequence : by_arrival) {
    sequence->forget_rows_in_flight();
    if (sequence->state() == SequenceState::ended) {
      unsettled.push_back(sequence);
    } else {
      fail(*sequence, {ErrorCode::rank_lost, why});
    }
  }
  settle();
  finished_on_ranks.clear();
  kv.clear();
}

// ---- the public face ----

Engine::Engine(EngineConfig config) : impl_(std::make_unique<Impl>(config)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

tl::expected<void, RequestError> Engine::add(Request request) {
  return impl_->add(std::move(request));
}

void Engine::adapter_ready(SequenceId id, SlotId slot) {
  impl_->adapter_ready(id, slot);
}
void Engine::adapter_failed(SequenceId id, std::string message) {
  impl_->adapter_failed(id, std::move(message));
}
void Engine::finish(SequenceId id, FinishReason reason) {
  impl_->finish(id, reason);
}
std::optional<StepPlan> Engine::plan() {
  return impl_->plan();
}
void Engine::absorb(const StepResult& result) {
  impl_->absorb(result);
}
void Engine::ranks_lost(const std::string& why) {
  impl_->ranks_lost(why);
}

void Engine::start_epoch(Epoch epoch) {
  CHECK(!impl_->available) << "epoch " << epoch.value() << " began before the ranks of the last one were lost";
  CHECK_GT(epoch.value(), impl_->epoch.value());
  impl_->epoch = epoch;
  impl_->last_step = StepId();
  impl_->available = true;
}

bool Engine::available() const {
  return impl_->available;
}

std::vector<Event> Engine::take_events() {
  return std::exchange(impl_->events, {});
}
std::vector<AdapterCall> Engine::take_adapter_calls() {
  return std::exchange(impl_->adapter_calls, {});
}

EngineStats Engine::stats() const {
  EngineStats stats = impl_->stats;
  stats.running = static_cast<int32_t>(impl_->running.size());
  stats.blocks_total = impl_->kv.num_blocks();
  stats.blocks_free = impl_->kv.num_free();
  stats.plans_in_flight = static_cast<int32_t>(impl_->in_flight.size());
  return stats;
}

}  // namespace lorikeet::engine
