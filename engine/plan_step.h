// The scheduling policy: what the next step computes, as a pure function of what it is shown.
//
// 1. Sequences that need one more position (decoding) come first, the oldest admission first. Where one needs a block
//    and none is free, the youngest running sequence is preempted: it gives its blocks back and is recomputed later. The
//    oldest one never is, so it always makes progress.
// 2. What is left of the token budget goes to prompts, a chunk or a whole one at a time, always to the group (adapter)
//    that has been served the fewest tokens: its prompts already begun first, then its queue. So however many requests
//    name one adapter, another's wait is bounded (virtual token counters: Sheng et al., "Fairness in Serving Large
//    Language Models", OSDI 2024).
// 3. A sequence is admitted with the blocks of all its tokens, and only if every running sequence could still take
//    another block: a newcomer that would have to leave at once is not worth its prefill. When the one whose turn it is
//    does not fit, nobody overtakes it. With nothing running it needs no reserve, and add() refused what cannot fit. One
//    that keeps its blocks was let in long ago, and needs none either.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/ids.h"
#include "engine/sequence.h"

namespace lorikeet::engine {

struct RunningSequence {
  GroupId group;
  int32_t remaining = 0;           // positions that may be computed next; 0: none before results come back
  int32_t num_computed = 0;        // positions in plans so far
  std::span<const BlockId> table;  // with more than one remaining: covers them all
};

struct WaitingSequence {
  GroupId group;
  int32_t num_tokens = 0;  // all of them known, prefix hits included
  // Of a sequence that was running when the ranks were lost: computed positions, and the blocks of its table they are in.
  int32_t num_kept = 0, num_kept_blocks = 0;
};

// The leading blocks of a waiting sequence that need no computing. At least one token is left to compute.
struct PrefixHits {
  int32_t num_blocks = 0;
  int32_t num_free = 0;  // of these, how many are in no table and so count as free
};

struct SchedulerView {
  std::span<const RunningSequence> running;   // by admission, the oldest first
  std::span<const WaitingSequence> waiting;   // able to start; each group's in the order in which it wants them
  std::span<const int64_t> served;            // [groups]: tokens that each group has been given
  std::span<const int32_t> reference_counts;  // [blocks]
  int32_t free_blocks = 0;
  // The prefix hits of waiting[i], unless it has kept blocks. Called at most once for each that is considered, since the
  // look-up is expensive.
  std::function<PrefixHits(size_t i)> prefix_hits;
};

struct SchedulerLimits {
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;  // at least max_num_seqs, so that decoding never starves
  int32_t block_size = 0;
};

struct ScheduledRow {
  int32_t index = 0;  // into running, or into waiting where is_new
  int32_t count = 0;  // positions to compute
  bool is_new = false;

  bool operator==(const ScheduledRow&) const = default;
};

struct Schedule {
  std::vector<int32_t> preempted;  // indices into running, the youngest first; they have no rows
  std::vector<ScheduledRow> rows;
  bool short_of_blocks = false;  // the next one that was to be admitted did not fit
};

// An upper bound of what a step admits, so a view need not show more of each group: an admitted sequence takes at least one
// block, and must leave one for each that runs.
inline int32_t max_admissions(int32_t num_running, int32_t free_blocks, const SchedulerLimits& limits) {
  return std::max(0, std::min(limits.max_num_seqs, free_blocks) - num_running);
}

// Deterministic: equal views and limits give equal schedules.
Schedule plan_step(const SchedulerView& view, const SchedulerLimits& limits);

inline int32_t blocks_for(int32_t positions, int32_t block_size) {
  return (positions + block_size - 1) / block_size;
}

}  // namespace lorikeet::engine
