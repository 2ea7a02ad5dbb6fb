// Plans and results: engine/engine.h.
#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/engine.h"

namespace lorikeet::engine {
namespace {

constexpr size_t kPrefetchAhead = 16;  // sequences
constexpr ptrdiff_t kEndsFarAhead = 4, kEndsNearAhead = 2;

RunningSequence view_of(const Sequence& sequence) {
  return {sequence.group(), sequence.remaining(), sequence.num_computed(), sequence.table().blocks};
}

// Minus infinity is one: the token cannot come.
bool is_logprob(float value) {
  return value < std::numeric_limits<float>::infinity();
}

}  // namespace

// ---- plans ----

// Those that were running when the ranks were lost, and have their adapters again: before all others, since they were
// let in before. False: there are none.
bool Engine::list_kept(size_t room) {
  for (const auto& [admission, sequence] : kept_) {
    if (candidates_.size() == room) break;
    if (!sequence->can_start()) continue;
    waiting_view_.push_back({sequence->group(), sequence->num_tokens(), sequence->num_computed(),
                             static_cast<int32_t>(sequence->table().blocks.size())});
    candidates_.push_back(sequence);
  }
  return !candidates_.empty();
}

// Those whom the policy may admit: `room` at the most. It takes groups by what they have been given, and each that it
// takes has one admitted, ends the admitting, or goes on with a prompt; so it gets no further than so many groups.
void Engine::list_candidates(size_t room) {
  size_t num_groups = room;
  if (queue_.num_startable() > room) {
    num_groups += static_cast<size_t>(
        std::ranges::count_if(running_view_, [](const RunningSequence& running) { return running.remaining > 1; }));
  }
  queue_.list_candidates(num_groups, room, waiting_view_, candidates_);
}

Schedule Engine::make_schedule() {
  const SchedulerLimits limits{config_.max_num_seqs, config_.max_num_batched_tokens, config_.block_size};
  const int32_t room = max_admissions(static_cast<int32_t>(running_.size()), kv_.num_free(), limits);
  waiting_view_.clear();
  candidates_.clear();
  if (trial_begins()) {
    if (running_.empty()) {
      waiting_view_.push_back({on_trial_->group(), on_trial_->num_tokens()});
      candidates_.push_back(on_trial_);
    }
  } else if (!trial_runs() && list_kept(static_cast<size_t>(config_.max_num_seqs) - running_.size())) {
    // Nobody else for now.
  } else if (room > 0 && !trial_runs()) {
    list_candidates(static_cast<size_t>(room));
  }
  SchedulerView view;
  view.running = running_view_;
  view.waiting = waiting_view_;
  view.served = queue_.served();
  view.reference_counts = kv_.reference_counts();
  view.free_blocks = kv_.num_free();
  view.prefix_hits = [this](size_t i) { return kv_.prefix_hits(*candidates_[i]); };
  return plan_step(view, limits);
}

// Where blocks are short, what is kept for the youngest one gives way: before anything that runs, and before everything
// stands still, since those that wait for their adapters may wait for one that waits for their blocks.
Schedule Engine::make_schedule_with_room() {
  for (;;) {
    Schedule schedule = make_schedule();
    const bool somebody_can = schedule.short_of_blocks || (in_flight_.empty() && queue_.num_startable() > 0);
    const bool is_stuck = schedule.rows.empty() && somebody_can;
    if (kept_.empty() || (schedule.preempted.empty() && !is_stuck)) return schedule;
    drop_kept(*kept_.rbegin()->second);
  }
}

void Engine::preempt(Sequence& sequence) {
  kv_.release(sequence);
  sequence.preempt();
  finished_on_ranks_.push_back(sequence.id());
  queue_.push(sequence);
  ++stats_.preempted;
  ++stats_.preemptions;
}

// Others wait for the slots of adapters that give way. Who has had a turn leaves, in the place of a block's end: what it
// has computed stays in the prefix cache, so that going on costs a few positions. While blocks are scarce they would be
// overwritten, and everybody stays.
void Engine::end_turns() {
  if (!queue_.any_gives_way() || !config_.enable_prefix_caching || kv_.num_free() < kv_.num_blocks() / 4) return;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i].sequence;
    if (!queue_.gives_way(running_view_[i].group) || &sequence == on_trial_) continue;
    if (!sequence.turn_is_over(config_.turn_tokens, config_.block_size)) continue;
    preempt(sequence);
    --stats_.preemptions;  // of these it is not said that blocks are short
    ++stats_.turns;
    running_[i].sequence = nullptr;
    ++num_gaps_;
    if (sequence.rows_in_flight() > 0) {
      sequence.set_gives_lease_back(true);
    } else {
      give_lease_back(sequence);
    }
  }
  close_gaps();
}

// preempted, with no row in flight: the slot is free for others, and it is asked for again behind them.
void Engine::give_lease_back(Sequence& sequence) {
  sequence.set_gives_lease_back(false);
  adapter_calls_.push_back(ReleaseAdapter{sequence.id(), sequence.adapter()});
  adapter_calls_.push_back(AcquireAdapter{sequence.id(), sequence.adapter()});
  sequence.set_lease(LeaseState::asked);
  queue_.note_asked_again(sequence);
}

// Starts a sequence with its prefix hits. Its other blocks are taken when every admitted one has its hits, lest one's
// new block be another's hit.
void Engine::admit(Sequence& sequence, StepPlan& plan) {
  const bool is_first = sequence.state() == SequenceState::waiting;
  queue_.remove(sequence);
  const bool is_kept = kept_.erase(sequence.admission()) > 0;
  const int32_t num_cached = is_kept ? sequence.num_computed() : kv_.share_prefix(sequence);
  if (!is_first)
    stats_.recomputed_tokens += static_cast<uint64_t>(std::max(0, sequence.num_computed_before() - num_cached));
  plan.starts.push_back(sequence.start(num_admissions_ + 1, num_cached));
  if (is_first) {
    ++num_admissions_;
    started_.push_back(sequence.id());
    --stats_.waiting;
    stats_.prompt_tokens += static_cast<uint64_t>(sequence.prompt_size());
    stats_.prefix_hit_tokens += static_cast<uint64_t>(num_cached);
  } else {
    --stats_.preempted;
  }
  ask_leases(sequence.group());
}

// One that was preempted takes its old place.
void Engine::add_running(Sequence& sequence) {
  size_t place = running_.size();
  while (place > 0 && running_[place - 1].admission > sequence.admission()) --place;
  running_.insert(running_.begin() + static_cast<ptrdiff_t>(place), {sequence.admission(), &sequence});
  running_view_.insert(running_view_.begin() + static_cast<ptrdiff_t>(place), view_of(sequence));
}

void Engine::remove_running(const Sequence& sequence) {
  const auto place = std::ranges::lower_bound(running_, sequence.admission(), {}, &Running::admission);
  CHECK(place != running_.end() && place->sequence == &sequence);
  place->sequence = nullptr;
  ++num_gaps_;
  // Where many end at once, as those of a client that goes away, they end in the order in which they came.
  const auto after = [this, place](ptrdiff_t ahead) {
    return running_.end() - place > ahead ? (place + ahead)->sequence : nullptr;
  };
  if (const Sequence* const far = after(kEndsFarAhead)) far->prefetch_for_end();
  if (const Sequence* const near = after(kEndsNearAhead)) kv_.prefetch_for_release(*near);
}

void Engine::close_gaps() {
  if (num_gaps_ == 0) return;
  size_t kept = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i].sequence == nullptr) continue;
    running_[kept] = running_[i];
    running_view_[kept++] = running_view_[i];
  }
  running_.resize(kept);
  running_view_.resize(kept);
  num_gaps_ = 0;
}

std::optional<StepPlan> Engine::plan() {
  if (!available_ || in_flight_.size() >= static_cast<size_t>(config_.max_plans_in_flight)) return std::nullopt;
  close_gaps();
  begin_trial();
  const PrefixId mark = kv_.latest();  // what a turn's end publishes may be of plans in flight, too
  end_turns();
  const Schedule schedule = make_schedule_with_room();
  // The policy names sequences by their place before anything moves.
  std::vector<Sequence*> planned;
  planned.reserve(schedule.rows.size());
  for (const ScheduledRow& row : schedule.rows) {
    planned.push_back(row.is_new ? candidates_[static_cast<size_t>(row.index)]
                                 : running_[static_cast<size_t>(row.index)].sequence);
  }
  for (const int32_t index : schedule.preempted) preempt(*running_[static_cast<size_t>(index)].sequence);
  running_.resize(running_.size() - schedule.preempted.size());
  running_view_.resize(running_.size());
  if (planned.empty()) {
    CHECK(!running_.empty() || candidates_.empty()) << "nothing runs, and the head of the queue cannot";
    return std::nullopt;
  }

  StepPlan plan;
  PlanInFlight record;
  record.mark = mark;
  int32_t num_adapters = 0;  // distinct ones
  for (size_t i = 0; i < planned.size(); ++i) {
    if (schedule.rows[i].is_new) admit(*planned[i], plan);
  }
  plan.rows.reserve(planned.size());
  record.rows.reserve(planned.size());
  for (size_t i = 0; i < planned.size(); ++i) {
    if (i + kPrefetchAhead < planned.size()) planned[i + kPrefetchAhead]->prefetch_for_plan();
    Sequence& sequence = *planned[i];
    const auto [index, count, is_new] = schedule.rows[i];
    const std::vector<BlockId>& blocks = sequence.table().blocks;
    const size_t num_known = is_new ? 0 : blocks.size();
    kv_.extend(sequence, is_new ? sequence.num_tokens() : sequence.num_computed() + count);
    if (blocks.size() > num_known) {
      plan.blocks.push_back({sequence.id(), {blocks.begin() + static_cast<ptrdiff_t>(num_known), blocks.end()}});
    }
    plan.rows.push_back(sequence.plan_row(count));
    const StepRow& row = plan.rows.back();
    record.rows.push_back({&sequence, row.start + row.count, static_cast<uint32_t>(row.count), row.sample ? 1U : 0U});
    // What it generates is published when it ends: nobody asks for that before.
    if (row.start < sequence.prompt_size()) kv_.publish(sequence);
    queue_.charge(sequence.group(), sequence.take_uncharged());
    if (!is_new) running_view_[static_cast<size_t>(index)] = view_of(sequence);
    if (sequence.lease() == LeaseState::held) {
      const auto group = static_cast<size_t>(sequence.group().value());
      if (group >= last_planned_.size()) last_planned_.resize(group + 1);
      if (std::exchange(last_planned_[group], stats_.plans + 1) != stats_.plans + 1) ++num_adapters;
    }
  }

  for (size_t i = 0; i < planned.size(); ++i) {
    if (schedule.rows[i].is_new) add_running(*planned[i]);
  }

  last_step_ = StepId(last_step_.value() + 1);
  plan.epoch = epoch_;
  plan.step = record.step = last_step_;
  plan.finished = std::move(finished_on_ranks_);
  finished_on_ranks_.clear();
  in_flight_.push_back(std::move(record));
  note_plan(num_adapters);
  return plan;
}

void Engine::note_plan(int32_t num_adapters) {
  ++stats_.plans;
  stats_.max_plans_in_flight_seen = std::max(stats_.max_plans_in_flight_seen, static_cast<int32_t>(in_flight_.size()));
  stats_.max_adapters_in_a_plan = std::max(stats_.max_adapters_in_a_plan, num_adapters);
}

// ---- results ----

// A row whose logits or log-probabilities are no numbers ends its own request; the others go on.
inline void Engine::absorb_row(Sequence& sequence, const PlanInFlight::Row& planned, RowResult& row,
                               PromptResult* of_prompt) {
  if (of_prompt != nullptr && !absorb_prompt(sequence, *of_prompt)) return;
  if (planned.sample == 0) return;
  if (row.token_id < 0 || !std::ranges::all_of(row.logprobs, is_logprob, &TokenLogprob::logprob)) {
    return fail_without_token(sequence, planned.end, row.token_id == kAllForbidden);
  }
  events_.emplace_back(TokenEvent{row.id, row.token_id, std::move(row.logprobs)});
  ++stats_.generated_tokens;
  if (&sequence == on_trial_) note_token_on_trial();
  const Sequence::Outcome outcome = sequence.append_token(row.token_id);
  if (outcome.complete) finish(sequence, outcome.reason, outcome.stop_token_id);
}

void Engine::absorb(StepResult result) {
  CHECK(!in_flight_.empty()) << "a result of step " << result.step.value() << ", but no plan is in flight";
  CHECK_EQ(result.epoch.value(), epoch_.value());
  CHECK_EQ(result.step.value(), in_flight_.front().step.value());
  CHECK_EQ(result.error, "");
  CHECK_EQ(result.rows.size(), in_flight_.front().rows.size());
  const PlanInFlight plan = std::move(in_flight_.front());
  in_flight_.pop_front();
  events_.reserve(events_.size() + plan.rows.size());
  auto of_prompt = result.prompts.begin();
  std::vector<SequenceId> giving_back;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    if (i + 2 * kPrefetchAhead < plan.rows.size()) {
      plan.rows[i + 2 * kPrefetchAhead].sequence->prefetch_for_result();
    }
    if (i + kPrefetchAhead < plan.rows.size()) plan.rows[i + kPrefetchAhead].sequence->prefetch_for_token();
    if (i + kPrefetchAhead / 2 < plan.rows.size()) plan.rows[i + kPrefetchAhead / 2].sequence->prefetch_token();
    Sequence& sequence = *plan.rows[i].sequence;
    CHECK(result.rows[i].id == sequence.id()) << result.rows[i].id.value() << " in place of " << sequence.id().value();
    sequence.row_returned();
    const bool has_prompt = of_prompt != result.prompts.end() && std::cmp_equal(of_prompt->row, i);
    PromptResult* const prompt = has_prompt ? &*of_prompt++ : nullptr;
    if (sequence.state() == SequenceState::ended) {
      destroy_if_unused(sequence);
    } else {
      if (sequence.gives_lease_back() && sequence.rows_in_flight() == 0) giving_back.push_back(sequence.id());
      absorb_row(sequence, plan.rows[i], result.rows[i], prompt);
    }
  }
  for (const SequenceId id : giving_back) {
    Sequence* const sequence = sequences_.find(id);  // null: that was its last token
    if (sequence != nullptr && sequence->state() == SequenceState::preempted) give_lease_back(*sequence);
  }
}

void Engine::fail_without_token(Sequence& sequence, int32_t position, bool is_its_own) {
  FailEvent event{sequence.id(), {ErrorCode::no_token, ""}, is_its_own};
  event.error.message =
      fmt::format("there is no token for position {}: {}", position,
                  is_its_own ? "the request forbids every token there" : "the logits before it are not finite");
  events_.emplace_back(Boxed<FailEvent>(std::move(event)));
  end(sequence);
}

// False: they are no numbers, and the sequence has ended for it.
bool Engine::absorb_prompt(Sequence& sequence, PromptResult& result) {
  auto event =
      sequence.take_prompt_logprobs(result.start, result.logprobs, std::move(result.ranks), std::move(result.best));
  const auto bad = std::ranges::find_if_not(event.values, is_logprob);
  if (bad != event.values.end()) {
    fail_without_token(sequence, event.start + static_cast<int32_t>(bad - event.values.begin()), false);
    return false;
  }
  if (!event.values.empty()) events_.emplace_back(Boxed<PromptLogprobsEvent>(std::move(event)));
  return true;
}

}  // namespace lorikeet::engine
