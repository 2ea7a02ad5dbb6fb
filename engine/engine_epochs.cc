// What the engine does when the ranks come and go: engine/engine.h.
#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace lorikeet::engine {

std::vector<Sequence*> Engine::by_arrival() const {
  std::vector<Sequence*> all;
  all.reserve(sequences_.size());
  sequences_.for_each([&all](Sequence& sequence) { all.push_back(&sequence); });
  std::ranges::sort(all, {}, &Sequence::arrival);
  return all;
}

void Engine::ranks_lost() {
  available_ = false;
  close_gaps();
  // What was published since the oldest plan in flight was made may not have been computed.
  const PrefixId mark = in_flight_.empty() ? kv_.latest() : in_flight_.front().mark;
  for (const PlanInFlight& plan : in_flight_) {
    for (const PlanInFlight::Row& row : plan.rows) {
      if (row.sequence->state() == SequenceState::running) row.sequence->take_back(static_cast<int32_t>(row.count));
    }
  }
  in_flight_.clear();
  std::vector<int32_t> absorbed;  // positions of each that runs
  absorbed.reserve(running_.size());
  for (const Running& running : running_) {
    absorbed.push_back(kv_.resting_on(*running.sequence, running.sequence->num_computed(), mark));
  }
  kv_.forget_later(mark);
  stats_.resumptions += running_.size();
  stats_.preempted += static_cast<int32_t>(running_.size());
  std::vector<Sequence*> stopped;
  stopped.reserve(running_.size());
  for (const Running& running : running_) stopped.push_back(running.sequence);
  running_.clear();
  running_view_.clear();
  finished_on_ranks_.clear();
  suspects_.clear();
  for (Sequence* sequence : by_arrival()) {
    queue_.set_gives_way(sequence->adapter(), false);
    const bool was_there = sequence->lose_ranks();
    if (sequence->state() != SequenceState::ended && was_there) {
      suspects_.push_back({sequence->id(), sequence == on_trial_});
    }
  }
  for (size_t i = 0; i < stopped.size(); ++i) stop(*stopped[i], absorbed[i], mark);
  for (Sequence* sequence : by_arrival()) {
    void_lease(*sequence);
    destroy_if_unused(*sequence);
  }
  if (on_trial_ != nullptr) set_aside(*std::exchange(on_trial_, nullptr));  // to be tried again, or blamed
}

// It ran when the ranks were lost, and keeps what was computed of it, if anything was.
void Engine::stop(Sequence& sequence, int32_t absorbed, PrefixId mark) {
  if (absorbed > 0) {
    kv_.keep(sequence, absorbed, mark);
    sequence.keep(absorbed);
    kept_.emplace(sequence.admission(), &sequence);
  } else {
    sequence.take_back(sequence.num_computed());
    kv_.release(sequence);
    sequence.preempt();
  }
  queue_.push(sequence);
}

// Of a preempted sequence; whole blocks are still found as any prefix is.
void Engine::drop_kept(Sequence& sequence) {
  kept_.erase(sequence.admission());
  kv_.release(sequence);
  sequence.forget_kept();
}

void Engine::forget_kv() {
  CHECK(!available_);
  while (!kept_.empty()) drop_kept(*kept_.begin()->second);
  kv_.clear();
}

// The slots went with the ranks. What was asked for is not wanted any more: it will be asked for in the next epoch.
void Engine::void_lease(Sequence& sequence) {
  const LeaseState lease = sequence.lease();
  if (lease == LeaseState::asked) adapter_calls_.push_back(ReleaseAdapter{sequence.id(), sequence.adapter()});
  if (lease != LeaseState::asked && lease != LeaseState::held) return;
  const bool queued = sequence.state() != SequenceState::ended;
  if (queued) queue_.remove(sequence);
  sequence.set_lease(queued ? LeaseState::unasked : LeaseState::unneeded);
  if (queued) queue_.push(sequence);
}

void Engine::blame_requests(const std::string& why) {
  CHECK(!available_);
  bool found_any = false;
  for (const auto& [id, alone] : std::exchange(suspects_, {})) {
    Sequence* const found = sequences_.find(id);
    if (found == nullptr) continue;  // cancelled meanwhile
    Sequence& sequence = *found;
    if (alone) {
      fail(sequence, {ErrorCode::poison,
                      fmt::format("{} losses of the ranks found the request being computed, the last one found it "
                                  "alone: {}",
                                  sequence.blame(), why)});
    } else if (sequence.blame() >= kMaxBlamedLosses && !set_aside_.contains(sequence.arrival())) {
      set_aside(sequence);
      found_any = true;
    }
  }
  if (!found_any) return;
  before_trial_.clear();
  sequences_.for_each([this](const Sequence& other) {
    if (other.state() != SequenceState::ended && !set_aside_.contains(other.arrival()))
      before_trial_.insert(other.id());
  });
}

void Engine::set_aside(Sequence& sequence) {
  if (sequence.is_kept()) drop_kept(sequence);
  queue_.remove(sequence);
  set_aside_.emplace(sequence.arrival(), &sequence);
}

// Once all that were there when it was set aside have ended. While it waits for its adapter's slot others go on, since
// one of them may have to give the slot up.
void Engine::begin_trial() {
  if (on_trial_ != nullptr || set_aside_.empty() || !before_trial_.empty()) return;
  on_trial_ = set_aside_.extract(set_aside_.begin()).mapped();
  if (on_trial_->lease() == LeaseState::unasked) {
    on_trial_->set_lease(LeaseState::asked);
    adapter_calls_.push_back(AcquireAdapter{on_trial_->id(), on_trial_->adapter()});
  }
  queue_.push(*on_trial_);
  trial_tokens_ = 0;
}

// More than what can have been ordered of the ranks when they were lost.
void Engine::note_token_on_trial() {
  if (++trial_tokens_ <= config_.max_plans_in_flight) return;
  on_trial_->acquit();
  on_trial_ = nullptr;
}

bool Engine::trial_begins() const {
  return on_trial_ != nullptr && on_trial_->can_start();
}

bool Engine::trial_runs() const {
  return on_trial_ != nullptr && on_trial_->state() == SequenceState::running;
}

void Engine::resize(int32_t num_blocks) {
  CHECK(!available_);
  CHECK_GT(num_blocks, 0);
  if (num_blocks == config_.num_blocks) return;
  config_.num_blocks = num_blocks;
  forget_kv();
  kv_.resize(num_blocks);
  for (Sequence* sequence : by_arrival()) {
    auto error = check_blocks(sequence->prompt_size(), sequence->sampling().max_tokens, num_blocks);
    if (error && sequence->state() != SequenceState::ended) fail(*sequence, *std::move(error));
  }
}

void Engine::start_epoch(Epoch epoch) {
  CHECK(!available_) << "epoch " << epoch.value() << " began before the ranks of the last one were lost";
  CHECK_GT(epoch.value(), epoch_.value());
  epoch_ = epoch;
  last_step_ = StepId();
  available_ = true;
  suspects_.clear();
  // Those that keep blocks first: slots are given in the order of the questions, and while blocks are held no turn ends.
  for (const auto& [admission, sequence] : kept_) ask_leases(sequence->group());
  for (const GroupId group : queue_.groups()) ask_leases(group);
}

}  // namespace lorikeet::engine
