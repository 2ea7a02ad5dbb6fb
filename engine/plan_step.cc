#include "engine/plan_step.h"

#include <glog/logging.h>

#include <algorithm>
#include <queue>
#include <tuple>
#include <unordered_map>

namespace lorikeet::engine {
namespace {

class Planner {
 public:
  Planner(const SchedulerView& view, const SchedulerLimits& limits)
      : view_(view),
        limits_(limits),
        num_kept_(view.running.size()),
        budget_(limits.max_num_batched_tokens),
        free_blocks_(view.free_blocks) {}

  Schedule plan() {
    schedule_.rows.reserve(view_.running.size() + 8);
    decode();
    prefill();
    return std::move(schedule_);
  }

 private:
  // What a group wants computed of its prompts, in order: a range of items_.
  struct Item {
    GroupId group;
    int32_t index = 0;
    bool is_new = false;
  };
  struct Turn {
    int64_t served = 0;
    size_t next = 0, end = 0;

    // For std::priority_queue, whose top is the greatest: fewest tokens served first, then the lower group.
    bool operator<(const Turn& other) const { return std::tie(served, next) > std::tie(other.served, other.next); }
  };

  void decode() {
    for (size_t i = 0; i < num_kept_ && budget_ > 0; ++i) {
      const RunningSequence& sequence = view_.running[i];
      if (sequence.remaining != 1) continue;
      const int32_t missing =
          blocks_for(sequence.num_computed + 1, limits_.block_size) - static_cast<int32_t>(sequence.table.size());
      while (missing > free_blocks_ && num_kept_ > i) preempt_youngest();
      if (num_kept_ <= i) return;
      free_blocks_ -= std::max(0, missing);
      add_row(i, 1, false);
    }
  }

  void preempt_youngest() {
    --num_kept_;
    schedule_.preempted.push_back(static_cast<int32_t>(num_kept_));
    for (const BlockId block : view_.running[num_kept_].table) {
      int32_t holders = view_.reference_counts[static_cast<size_t>(block.value())];
      if (holders > 1) holders -= dropped_[block]++;
      if (holders == 1) ++free_blocks_;
    }
  }

  void prefill() {
    // Nobody is let in by a step that had to send others out.
    admitting_ = schedule_.preempted.empty();
    num_running_ = static_cast<int32_t>(num_kept_);
    collect_items();
    std::priority_queue<Turn> turns = first_turns();
    while (!turns.empty() && budget_ > 0) {
      Turn turn = turns.top();
      turns.pop();
      const Item& item = items_[turn.next];
      const int32_t count = item.is_new ? admit(item.index) : continue_prompt(item.index);
      if (count == 0) continue;  // the rest of the group's items would be overtaking
      turn.served += count;
      if (++turn.next < turn.end) turns.push(turn);
    }
  }

  void collect_items() {
    for (size_t i = 0; i < num_kept_; ++i) {
      if (view_.running[i].remaining > 1) items_.push_back({view_.running[i].group, static_cast<int32_t>(i), false});
    }
    if (admitting_) {
      for (size_t i = 0; i < view_.waiting.size(); ++i) {
        items_.push_back({view_.waiting[i].group, static_cast<int32_t>(i), true});
      }
    }
    std::ranges::stable_sort(items_, {}, &Item::group);
  }

  std::priority_queue<Turn> first_turns() const {
    std::vector<Turn> turns;
    for (size_t begin = 0; begin < items_.size();) {
      size_t end = begin + 1;
      while (end < items_.size() && items_[end].group == items_[begin].group) ++end;
      turns.push_back({view_.served[static_cast<size_t>(items_[begin].group.value())], begin, end});
      begin = end;
    }
    return std::priority_queue<Turn>({}, std::move(turns));
  }

  int32_t continue_prompt(int32_t index) {
    const RunningSequence& sequence = view_.running[static_cast<size_t>(index)];
    CHECK_LE(sequence.num_computed + sequence.remaining,
             static_cast<int32_t>(sequence.table.size()) * limits_.block_size);
    return add_row(static_cast<size_t>(index), sequence.remaining, false);
  }

  // Tokens computed of a waiting sequence; 0 where it cannot start now.
  int32_t admit(int32_t index) {
    if (!admitting_ || num_running_ >= limits_.max_num_seqs) return 0;
    const WaitingSequence& sequence = view_.waiting[static_cast<size_t>(index)];
    const bool is_kept = sequence.num_kept > 0;
    const PrefixHits hits =
        is_kept ? PrefixHits{sequence.num_kept_blocks, 0} : view_.prefix_hits(static_cast<size_t>(index));
    const int32_t taken = blocks_for(sequence.num_tokens, limits_.block_size) - hits.num_blocks + hits.num_free;
    if (taken + (is_kept ? 0 : num_running_) > free_blocks_) {
      admitting_ = false;
      schedule_.short_of_blocks = true;
      return 0;
    }
    free_blocks_ -= taken;
    ++num_running_;
    const int32_t num_computed = is_kept ? sequence.num_kept : hits.num_blocks * limits_.block_size;
    return add_row(static_cast<size_t>(index), sequence.num_tokens - num_computed, true);
  }

  int32_t add_row(size_t index, int32_t wanted, bool is_new) {
    const int32_t count = std::min(wanted, budget_);
    schedule_.rows.push_back({static_cast<int32_t>(index), count, is_new});
    budget_ -= count;
    return count;
  }

  const SchedulerView& view_;
  const SchedulerLimits& limits_;
  Schedule schedule_;
  size_t num_kept_;  // running sequences that have not been preempted: the oldest ones
  int32_t budget_;   // tokens
  int32_t free_blocks_;
  int32_t num_running_ = 0;
  bool admitting_ = true;
  std::unordered_map<BlockId, int32_t> dropped_;  // of blocks that several held: how many have been preempted
  std::vector<Item> items_;                       // by group
};

}  // namespace

Schedule plan_step(const SchedulerView& view, const SchedulerLimits& limits) {
  CHECK_GE(limits.max_num_batched_tokens, limits.max_num_seqs);
  return Planner(view, limits).plan();
}

}  // namespace lorikeet::engine
