#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "engine/engine_impl.h"

namespace lorikeet::engine {
namespace {

constexpr size_t kPrefetchAhead = 16;  // sequences

RunningSequence view_of(const Sequence& sequence) {
  return {sequence.group(), sequence.remaining(), sequence.num_computed(), sequence.table().blocks};
}

}  // namespace

// ---- plans ----

Schedule Engine::Impl::make_schedule() {
  const SchedulerLimits limits{config.max_num_seqs, config.max_num_batched_tokens, config.block_size};
  const int32_t room = max_admissions(static_cast<int32_t>(running.size()), kv.num_free(), limits);
  waiting_view.clear();
  candidates.clear();
  if (room > 0) queue.list_candidates(static_cast<size_t>(room), waiting_view, candidates);
  SchedulerView view;
  view.running = running_view;
  view.waiting = waiting_view;
  view.served = queue.served();
  view.reference_counts = kv.reference_counts();
  view.free_blocks = kv.num_free();
  view.prefix_hits = [this](size_t i) { return kv.prefix_hits(*candidates[i]); };
  return plan_step(view, limits);
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
  ask_leases(sequence.group());
}

// One that was preempted takes its old place.
void Engine::Impl::add_running(Sequence& sequence) {
  size_t place = running.size();
  while (place > 0 && running[place - 1]->admission() > sequence.admission()) --place;
  running.insert(running.begin() + static_cast<ptrdiff_t>(place), &sequence);
  running_view.insert(running_view.begin() + static_cast<ptrdiff_t>(place), view_of(sequence));
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
  running_view.resize(running.size());
  if (planned.empty()) {
    CHECK(!running.empty() || candidates.empty()) << "nothing runs, and the head of the queue cannot";
    return std::nullopt;
  }

  StepPlan plan;
  PlanInFlight record;
  int32_t num_adapters = 0;  // distinct ones
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
    // What it generates is published when it ends: nobody asks for that before.
    if (plan.rows.back().start < sequence.prompt_size()) kv.publish(sequence);
    queue.charge(sequence.group(), sequence.take_uncharged());
    if (!is_new) running_view[static_cast<size_t>(index)] = view_of(sequence);
    if (sequence.lease() == LeaseState::held) {
      const auto group = static_cast<size_t>(sequence.group().value());
      if (group >= last_planned.size()) last_planned.resize(group + 1);
      if (std::exchange(last_planned[group], stats.plans + 1) != stats.plans + 1) ++num_adapters;
    }
  }

  for (size_t i = 0; i < planned.size(); ++i) {
    if (schedule.rows[i].is_new) add_running(*planned[i]);
  }

  last_step = StepId(last_step.value() + 1);
  plan.epoch = epoch;
  plan.step = record.step = last_step;
  plan.finished = std::move(finished_on_ranks);
  finished_on_ranks.clear();
  in_flight.push_back(std::move(record));
  note_plan(num_adapters);
  return plan;
}

void Engine::Impl::note_plan(int32_t num_adapters) {
  ++stats.plans;
  stats.max_plans_in_flight_seen = std::max(stats.max_plans_in_flight_seen, static_cast<int32_t>(in_flight.size()));
  stats.max_adapters_in_a_plan = std::max(stats.max_adapters_in_a_plan, num_adapters);
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

}  // namespace lorikeet::engine
