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
  in_flight_.clear();
  close_gaps();
  for (const Running& running : running_) {
    preempt(*running.sequence);
    --stats_.preemptions;  // of these it is not said that blocks are short
    ++stats_.resumptions;
  }
  running_.clear();
  running_view_.clear();
  finished_on_ranks_.clear();
  suspects_.clear();
  for (Sequence* sequence : by_arrival()) {
    queue_.set_gives_way(sequence->adapter(), false);
    const bool was_there = sequence->lose_ranks();
    void_lease(*sequence);
    if (sequence->state() == SequenceState::ended) {
      destroy_if_unused(*sequence);
    } else if (was_there) {
      suspects_.push_back({sequence->id(), sequence == on_trial_});
    }
  }
  if (on_trial_ != nullptr) set_aside(*std::exchange(on_trial_, nullptr));  // to be tried again, or blamed
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
  for (const GroupId group : queue_.groups()) ask_leases(group);
}

}  // namespace lorikeet::engine
