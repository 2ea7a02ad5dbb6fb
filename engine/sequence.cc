#include "engine/sequence.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace lorikeet::engine {

std::string_view name_of(SequenceState state) {
  constexpr std::string_view names[] = {"waiting", "running", "preempted", "ended"};
  return names[static_cast<size_t>(state)];
}

// Tokens that get their memory at the start instead of while results come in, where each would wait for it.
constexpr int32_t kRoomAhead = 512;

Sequence::Sequence(Request request, uint64_t arrival, GroupId group, const Prefix& root)
    : id_(request.id),
      num_known_(static_cast<int32_t>(request.prompt.size())),
      token_limit_(static_cast<int32_t>(
          std::min<int64_t>(int64_t{num_known_} + request.sampling.max_tokens, std::numeric_limits<int32_t>::max()))),
      lease_(request.adapter.empty() ? LeaseState::unneeded : LeaseState::unasked),
      group_(group),
      prompt_size_(num_known_),
      tokens_(std::move(request.prompt)),
      sampling_(std::move(request.sampling)),
      arrival_(arrival),
      root_(root),
      adapter_(std::move(request.adapter)) {
  CHECK_GT(prompt_size_, 0);
  CHECK_GT(sampling_.max_tokens, 0);
  table_.published_prefix = root;
  const std::vector<int32_t>& stops = sampling_.stop_token_ids;
  std::copy_n(stops.begin(), std::min(stops.size(), first_stops_.size()), first_stops_.begin());
  has_more_stops_ = stops.size() > first_stops_.size();
}

void Sequence::hold_lease(SlotId slot) {
  CHECK(lease_ == LeaseState::asked) << "sequence " << id_.value() << " asked for no lease";
  lease_ = LeaseState::held;
  slot_ = slot;
}

void Sequence::lose_lease() {
  CHECK(lease_ == LeaseState::asked) << "sequence " << id_.value() << " asked for no lease";
  lease_ = LeaseState::unneeded;
}

bool Sequence::can_start() const {
  const bool queued = state_ == SequenceState::waiting || state_ == SequenceState::preempted;
  return queued && rows_in_flight_ == 0 && !gives_lease_back_ &&
         (lease_ == LeaseState::unneeded || lease_ == LeaseState::held);
}

bool Sequence::turn_is_over(int32_t least, int32_t block_size) const {
  constexpr int32_t kFewPositions = 3;
  if (state_ != SequenceState::running || remaining() != 1 || num_known_ - tokens_at_start_ < least) return false;
  // What is published: known and computed. At a block's end whose last token is known and not computed, none of it is.
  return num_computed_ - std::min(num_computed_, num_known_) / block_size * block_size <= kFewPositions;
}

void Sequence::change_state(SequenceState from, SequenceState to) {
  CHECK(state_ == from) << "sequence " << id_.value() << " is " << name_of(state_) << ", not " << name_of(from);
  state_ = to;
}

SequenceStart Sequence::start(uint64_t admission, int32_t num_cached) {
  CHECK(can_start()) << "sequence " << id_.value() << " (" << name_of(state_) << ") is not ready to run";
  CHECK_LT(num_cached, num_tokens());
  if (state_ == SequenceState::waiting) {
    tokens_.reserve(tokens_.size() + static_cast<size_t>(std::min(token_limit_ - num_known_, kRoomAhead)));
    admission_ = admission;
    num_cached_tokens_ = num_cached;
  }
  change_state(state_, SequenceState::running);
  tokens_at_start_ = num_known_;
  num_computed_ = num_cached;
  num_charged_ = std::max(num_charged_, num_cached);
  SequenceStart start{id_, slot_, tokens(), prompt_size_, sampling_};
  start.sampling.prompt_logprobs = wants_prompt_logprobs();
  return start;
}

StepRow Sequence::plan_row(int32_t count) {
  CHECK(state_ == SequenceState::running) << "sequence " << id_.value() << " is " << name_of(state_);
  CHECK_GT(count, 0);
  CHECK_LE(count, remaining());
  const StepRow row{id_, num_computed_, count, num_computed_ + count == num_tokens()};
  num_computed_ += count;
  ++rows_in_flight_;
  if (row.sample) ++pending_;
  return row;
}

void Sequence::no_row_in_flight() const {
  LOG(FATAL) << "a row of sequence " << id_.value() << " is back, whose rows_in_flight is 0";
}

void Sequence::file_recent() const {
  tokens_.insert(tokens_.end(), recent_.begin(), recent_.begin() + num_recent_);
  num_recent_ = 0;
}

bool Sequence::is_a_later_stop(int32_t token) const {
  return std::ranges::find(sampling_.stop_token_ids, token) != sampling_.stop_token_ids.end();
}

void Sequence::no_token_pending() const {
  LOG(FATAL) << "no token of sequence " << id_.value() << " is pending, which is " << name_of(state_);
}

PromptLogprobsEvent Sequence::take_prompt_logprobs(int32_t start, const std::vector<float>& values,
                                                   std::vector<int32_t> ranks,
                                                   std::vector<std::vector<TokenLogprob>> best) {
  CHECK_LE(start, next_prompt_logprob_) << "prompt log-probabilities of sequence " << id_.value() << " have a gap";
  const auto known = std::min(static_cast<size_t>(next_prompt_logprob_ - start), values.size());
  PromptLogprobsEvent event{id_, next_prompt_logprob_, {values.begin() + static_cast<ptrdiff_t>(known), values.end()}};
  ranks.erase(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(std::min(known, ranks.size())));
  best.erase(best.begin(), best.begin() + static_cast<ptrdiff_t>(std::min(known, best.size())));
  event.ranks = std::move(ranks);
  event.best = std::move(best);
  next_prompt_logprob_ += static_cast<int32_t>(event.values.size());
  CHECK_LE(next_prompt_logprob_, prompt_size_);
  return event;
}

void Sequence::preempt() {
  CHECK(table_.blocks.empty());
  change_state(SequenceState::running, SequenceState::preempted);
  num_computed_before_ = std::exchange(num_computed_, 0);
}

void Sequence::keep(int32_t num_kept) {
  CHECK_GT(num_kept, 0);
  CHECK_LT(num_kept, num_known_);
  change_state(SequenceState::running, SequenceState::preempted);
  num_computed_before_ = num_computed_ = num_kept;
}

void Sequence::forget_kept() {
  CHECK(is_kept() && table_.blocks.empty());
  num_computed_ = 0;
}

bool Sequence::lose_ranks() {
  pending_ = 0;
  gives_lease_back_ = false;
  return std::exchange(rows_in_flight_, int16_t{0}) > 0;
}

void Sequence::end() {
  CHECK(table_.blocks.empty());
  CHECK(state_ != SequenceState::ended) << "sequence " << id_.value() << " ended twice";
  state_ = SequenceState::ended;
  tokens_ = {};
  num_recent_ = 0;
}

int32_t Sequence::take_uncharged() {
  const int32_t uncharged = std::max(0, num_computed_ - num_charged_);
  num_charged_ += uncharged;
  return uncharged;
}

}  // namespace lorikeet::engine
