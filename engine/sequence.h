// One request on its way through the engine.
//
//     waiting ----> running ----> ended
//        |           |   ^          ^
//        |   preempt |   | resume   |
//        |           v   |          |
//        |         preempted -------+
//        +--------------------------+      (every state may end; nothing leaves `ended`)
//
// Positions [0, num_computed) have been put into plans; the ranks execute plans in order, so whoever comes in a later
// plan may count on them. Tokens [0, tokens().size()) are known; `pending` more have been ordered of the ranks and not
// come back yet. A row may compute a pending token's position: the ranks know the token by then.
//
// An ended or preempted sequence may still have rows in plans in flight. Their tokens count for a preempted one and are
// dropped for an ended one, which stays in memory until the last of them is back.
//
// A sequence that was running when the ranks were lost may keep its blocks while it is preempted (is_kept): what the
// engine knows to be computed in them is not computed again.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "engine/events.h"
#include "engine/ids.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/step_plan.h"

namespace lorikeet::engine {

using GroupId = Id<struct GroupTag, int32_t>;  // requests of one adapter, who share what the machine gives them

enum class SequenceState : uint8_t { waiting, running, preempted, ended };
std::string_view name_of(SequenceState state);

enum class LeaseState : uint8_t { unneeded, unasked, asked, held };

// The blocks that a sequence holds, kept by KvCache.
struct BlockTable {
  std::vector<BlockId> blocks;  // in order of position
  Prefix published_prefix;      // what the prefix cache calls the first num_published of them
  int32_t num_published = 0;
};

class alignas(64) Sequence {
 public:
  static constexpr int32_t kMaxRowsInFlight = std::numeric_limits<int16_t>::max();

  // `arrival` counts the requests of the engine.
  Sequence(Request request, uint64_t arrival, GroupId group, const Prefix& root);

  SequenceId id() const { return id_; }
  const std::string& adapter() const { return adapter_; }
  const SamplingParams& sampling() const { return sampling_; }
  GroupId group() const { return group_; }
  const Prefix& root() const { return root_; }
  uint64_t arrival() const { return arrival_; }
  SequenceState state() const { return state_; }

  LeaseState lease() const { return lease_; }
  void set_lease(LeaseState lease) { lease_ = lease; }
  void hold_lease(SlotId slot);
  void lose_lease();  // asked for in vain

  // In the queue with all its tokens known and its adapter resident: the next plan may start it.
  bool can_start() const;

  BlockTable& table() { return table_; }
  const BlockTable& table() const { return table_; }

  int32_t prompt_size() const { return prompt_size_; }
  const std::vector<int32_t>& tokens() const {
    if (num_recent_ > 0) file_recent();
    return tokens_;
  }
  // The same, but the last few may be missing: nothing is written for it.
  const std::vector<int32_t>& filed_tokens() const { return tokens_; }
  int32_t num_tokens() const { return num_known_ + pending_; }
  int32_t num_computed() const { return num_computed_; }
  int32_t num_cached_tokens() const { return num_cached_tokens_; }
  int32_t rows_in_flight() const { return rows_in_flight_; }

  // Positions that the next plan may compute: none when the last token that max_tokens allows is already ordered.
  int32_t remaining() const { return num_tokens() >= token_limit_ ? 0 : num_tokens() - num_computed_; }

  // Whether it has got `least` tokens since it was started and stands just behind the end of a block, so that the prefix cache would
  // keep all but a few positions if it was preempted now.
  bool turn_is_over(int32_t least, int32_t block_size) const;

  // preempted: its lease goes back when no row is in flight any more.
  bool gives_lease_back() const { return gives_lease_back_; }
  void set_gives_lease_back(bool gives) { gives_lease_back_ = gives; }

  // Counts first admissions, and is kept across preemptions: the youngest is preempted when blocks run out. 0: never
  // admitted.
  uint64_t admission() const { return admission_; }

  // A request for prompt_logprobs needs every prompt position computed for it, until they have all been reported.
  bool wants_prompt_logprobs() const { return sampling_.prompt_logprobs && next_prompt_logprob_ < prompt_size_; }

  // waiting | preempted -> running, with `num_cached` leading positions (whole blocks) already computed by others.
  // Returns what the ranks need to know.
  SequenceStart start(uint64_t admission, int32_t num_cached);

  // running: the next `count` positions go into a plan.
  StepRow plan_row(int32_t count);

  // A row of this sequence is back: forgets about it, whatever the state. CHECKs that one is in flight.
  void row_returned() {
    if (rows_in_flight_ == 0) no_row_in_flight();
    --rows_in_flight_;
  }

  // The token that a returned row drew, for a sequence that has not ended. Returns whether the sequence is complete.
  struct Outcome {
    bool complete = false;
    FinishReason reason = FinishReason::stop;
    int32_t stop_token_id = -1;
  };
  Outcome append_token(int32_t token) {
    if (pending_ == 0 || (state_ != SequenceState::running && state_ != SequenceState::preempted)) no_token_pending();
    --pending_;
    ++num_known_;
    recent_[num_recent_++] = token;
    if (num_recent_ == kMaxRecent) file_recent();
    if (stops_at(token)) return {true, FinishReason::stop, token};
    if (num_known_ >= token_limit_) return {true, FinishReason::length, -1};
    return {};
  }

  // Cuts the values that were reported before a preemption; nothing remains where all were.
  PromptLogprobsEvent take_prompt_logprobs(int32_t start, const std::vector<float>& values,
                                           std::vector<int32_t> ranks = {},
                                           std::vector<std::vector<TokenLogprob>> best = {});

  // running -> preempted. What was computed is void; the block table must have been emptied.
  void preempt();

  // running -> preempted, with the first `num_kept` positions, at least one, as they are; they are in the table.
  void keep(int32_t num_kept);
  // Of a preempted one: they are void as well, once the table has been emptied.
  void forget_kept();
  bool is_kept() const { return state_ == SequenceState::preempted && num_computed_ > 0; }

  // running: positions that were in the latest plans have never been computed.
  void take_back(int32_t count) { num_computed_ -= count; }

  // Positions that had been computed when it stopped running last.
  int32_t num_computed_before() const { return num_computed_before_; }

  // The ranks and their plans are gone: no row of this sequence will come back. Returns whether any was in flight.
  bool lose_ranks();

  // A loss that may be this sequence's doing; returns how many there have been. It is cleared of them.
  int32_t blame() { return ++blamed_losses_; }
  void acquit() { blamed_losses_ = 0; }

  // any -> ended. Lets go of the tokens.
  void end();

  // Prefetch what a plan, a result, a result's token (first the vector, then its end) or an end will touch. With thousands of
  // running sequences, waiting for memory is most of a step's time.
  void prefetch_for_plan() const {
    __builtin_prefetch(this, 1);
    __builtin_prefetch(reinterpret_cast<const char*>(this) + alignof(Sequence), 1);
  }
  void prefetch_for_result() const { __builtin_prefetch(this, 1); }
  void prefetch_for_token() const {
    if (num_recent_ + 1 == kMaxRecent) __builtin_prefetch(&tokens_, 1);
  }
  void prefetch_token() const {
    if (num_recent_ + 1 == kMaxRecent) __builtin_prefetch(tokens_.data() + tokens_.size(), 1);
  }
  void prefetch_for_end() const {
    for (size_t at = 0; at < sizeof(Sequence); at += alignof(Sequence)) {
      __builtin_prefetch(reinterpret_cast<const char*>(this) + at, 1);
    }
  }

  // Positions that fairness has not counted yet: recomputed ones are nobody's fault and count once.
  int32_t take_uncharged();

 private:
  bool stops_at(int32_t token) const {
    for (const int32_t stop : first_stops_) {
      if (token == stop) return true;
    }
    return has_more_stops_ && is_a_later_stop(token);
  }
  bool is_a_later_stop(int32_t token) const;
  [[noreturn]] void no_row_in_flight() const;
  [[noreturn]] void no_token_pending() const;
  void change_state(SequenceState from, SequenceState to);

  // Moves the recent tokens to the end of tokens_.
  void file_recent() const;

  // What every step reads and writes comes first, in two cache lines: with thousands of sequences running, fetching
  // them is what a step costs. The first is all that most results touch; so the last tokens are there, too, until there
  // are enough of them.
  static constexpr int kMaxRecent = 8;
  SequenceId id_;
  int32_t num_known_ = 0;    // tokens
  int32_t token_limit_ = 0;  // that the prompt and max_tokens allow
  int16_t pending_ = 0;
  int16_t rows_in_flight_ = 0;
  SequenceState state_ = SequenceState::waiting;
  LeaseState lease_ = LeaseState::unneeded;
  bool has_more_stops_ : 1 = false;    // than first_stops_ holds
  bool gives_lease_back_ : 1 = false;  // asked of every row that comes back
  mutable uint8_t num_recent_ = 0;
  std::array<int32_t, 2> first_stops_{-1, -1};  // of sampling_.stop_token_ids; no token is -1
  std::array<int32_t, kMaxRecent> recent_{};    // the tokens behind tokens_

  BlockTable table_;
  GroupId group_;
  int32_t num_computed_ = 0;
  int32_t num_charged_ = 0;
  int32_t prompt_size_ = 0;

  mutable std::vector<int32_t> tokens_;  // the prompt and the tokens emitted, less the recent ones
  SamplingParams sampling_;
  SlotId slot_ = kBaseSlot;
  int32_t num_cached_tokens_ = 0;    // prompt tokens found in the prefix cache at the first admission
  int32_t next_prompt_logprob_ = 1;  // position 0 has none
  int32_t tokens_at_start_ = 0;      // known when it was started last
  int32_t blamed_losses_ = 0;
  int32_t num_computed_before_ = 0;
  uint64_t arrival_ = 0, admission_ = 0;
  Prefix root_;
  std::string adapter_;
};

}  // namespace lorikeet::engine
