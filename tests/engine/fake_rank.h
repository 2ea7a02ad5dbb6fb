// A rank without a model: it executes plans as a rank must, and checks all that a rank may take for granted.
//
// The keys and values of a position are stood for by a digest of the tokens up to it and of the adapter: exactly what
// they depend on in a real model. So a block that was shared wrongly, read too early or overwritten too soon shows as a
// digest that differs from the one computed from the sequence's own tokens. The token drawn is a function of that
// digest, so that a request's tokens are the same alone or in company, preempted or not, with prefix hits or without.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"

namespace lorikeet::engine::testing {

inline uint64_t mix_digest(uint64_t digest, uint64_t value) {
  digest = (digest ^ value) * 0x9e3779b97f4a7c15;
  return digest ^ digest >> 29;
}

// What a model with this adapter in its slot says about a context: the digest of all of it.
inline uint64_t digest_of(uint64_t adapter, const std::vector<int32_t>& tokens, size_t count) {
  uint64_t digest = mix_digest(0x10c1, adapter);
  for (size_t i = 0; i < count; ++i) digest = mix_digest(digest, static_cast<uint64_t>(tokens[i]));
  return digest;
}

inline int32_t token_drawn(uint64_t digest, int32_t vocabulary) {
  return static_cast<int32_t>(digest % static_cast<uint64_t>(vocabulary));
}

class FakeRank {
 public:
  explicit FakeRank(const EngineConfig& config, int32_t vocabulary = 50)
      : config_(config),
        vocabulary_(vocabulary),
        kv_(static_cast<size_t>(config.num_blocks) * static_cast<size_t>(config.block_size)) {}

  // What the slot holds, as a number that stands for the adapter's content. The base slot needs none.
  void set_adapter(SlotId slot, uint64_t content) { adapters_[slot] = content; }
  void clear_adapter(SlotId slot) { adapters_.erase(slot); }

  StepResult execute(const StepPlan& plan) {
    EXPECT_EQ(plan.step.value(), ++last_step_) << "plans come in order";
    for (const SequenceId id : plan.finished) EXPECT_EQ(sequences_.erase(id), 1u) << "finished unknown " << id.value();
    for (const SequenceStart& start : plan.starts) apply(start);
    for (const BlockAppend& append : plan.blocks) apply(append);
    StepResult result;
    result.epoch = plan.epoch;
    result.step = plan.step;
    check_writers(plan);
    int64_t num_tokens = 0;
    // The rows of a plan run side by side. Each reads what it did not compute itself before any other has written, so a
    // row that leans on another of the same plan is found out.
    for (const StepRow& row : plan.rows) check_context(row);
    for (const StepRow& row : plan.rows) {
      num_tokens += row.count;
      std::vector<float> of_prompt = prompt_logprobs(row);
      if (!of_prompt.empty()) {
        result.prompts.push_back({static_cast<int32_t>(result.rows.size()), row.start + 1, std::move(of_prompt)});
      }
      result.rows.push_back(compute(row));
    }
    EXPECT_LE(num_tokens, config_.max_num_batched_tokens);
    EXPECT_LE(plan.rows.size(), static_cast<size_t>(config_.max_num_seqs));
    return result;
  }

  // From this position on the logits of a sequence are not finite: no token is drawn. What was planned ahead is
  // computed with token 0 in its place.
  std::map<SequenceId, int32_t> diverging;
  std::set<SequenceId> forbidding;  // those of them whose requests forbid every token there

  // The group is lost. The plans that were sent may have been executed in part or whole: everything that they write, and
  // all that no plan has written yet, holds what is nobody's. The memory stays with the next epoch's rank.
  void stop_with(const std::deque<StepPlan>& in_flight) {
    for (const StepPlan& plan : in_flight) {
      for (const SequenceId id : plan.finished) sequences_.erase(id);
      for (const SequenceStart& start : plan.starts) apply(start);
      for (const BlockAppend& append : plan.blocks) apply(append);
      for (const StepRow& row : plan.rows) {
        for (int32_t i = row.start; i < row.start + row.count; ++i) kv(sequences_.at(row.id), i) = kPoison;
      }
    }
    std::replace(kv_.begin(), kv_.end(), uint64_t{0}, kPoison);
    for (const auto& [id, sequence] : sequences_) stopped_.insert(id);
    sequences_.clear();
    adapters_.clear();
    last_step_ = 0;
  }

  size_t num_sequences() const { return sequences_.size(); }
  int64_t num_positions_computed() const { return num_positions_computed_; }

 private:
  struct RankSequence {
    SlotId slot;
    uint64_t adapter = 0;
    std::vector<int32_t> tokens;
    int32_t prompt_size = 0;
    int32_t num_computed = -1;  // -1: nothing yet, and the first row says how much the prefix cache gave
    bool prompt_logprobs = false;
    std::vector<BlockId> table;
  };

  static constexpr uint64_t kPoison = 0xdead;

  void apply(const SequenceStart& start) {
    RankSequence sequence;
    sequence.slot = start.slot;
    if (start.slot != kBaseSlot) {
      EXPECT_TRUE(adapters_.contains(start.slot)) << "slot " << start.slot.value() << " holds no adapter";
      sequence.adapter = adapters_[start.slot];
    }
    sequence.tokens = start.token_ids;
    sequence.prompt_size = start.prompt_size;
    sequence.prompt_logprobs = start.sampling.prompt_logprobs;
    EXPECT_GT(start.prompt_size, 0);
    EXPECT_LE(start.prompt_size, static_cast<int32_t>(start.token_ids.size()));
    EXPECT_TRUE(sequences_.emplace(start.id, std::move(sequence)).second) << "started twice: " << start.id.value();
  }

  void apply(const BlockAppend& append) {
    RankSequence& sequence = sequences_.at(append.id);
    EXPECT_FALSE(append.blocks.empty());
    for (const BlockId block : append.blocks) {
      EXPECT_GE(block.value(), 0);
      EXPECT_LT(block.value(), config_.num_blocks);
      EXPECT_EQ(std::ranges::count(sequence.table, block), 0) << "twice in a table: block " << block.value();
      sequence.table.push_back(block);
    }
  }

  uint64_t& kv(const RankSequence& sequence, int32_t position) {
    const auto block = sequence.table.at(static_cast<size_t>(position / config_.block_size)).value();
    return kv_[static_cast<size_t>(block) * static_cast<size_t>(config_.block_size) +
               static_cast<size_t>(position % config_.block_size)];
  }

  // Nobody writes where another row reads or writes. Only rows of live sequences count: the table of an ended one may
  // linger, unread, until the plan that says so.
  void check_writers(const StepPlan& plan) {
    std::map<BlockId, SequenceId> writers;
    std::set<SequenceId> with_row;
    for (const StepRow& row : plan.rows) {
      EXPECT_TRUE(with_row.insert(row.id).second) << "two rows of sequence " << row.id.value();
      const RankSequence& sequence = sequences_.at(row.id);
      for (int32_t i = row.start / config_.block_size; i <= (row.start + row.count - 1) / config_.block_size; ++i) {
        EXPECT_TRUE(writers.emplace(sequence.table.at(static_cast<size_t>(i)), row.id).second)
            << "two writers of block " << sequence.table[static_cast<size_t>(i)].value();
      }
    }
    for (const StepRow& row : plan.rows) {
      for (const BlockId block : sequences_.at(row.id).table) {
        const auto writer = writers.find(block);
        if (writer != writers.end()) {
          EXPECT_EQ(writer->second.value(), row.id.value()) << "block " << block.value();
        }
      }
    }
  }

  void check_context(const StepRow& row) {
    RankSequence& sequence = sequences_.at(row.id);
    if (sequence.slot != kBaseSlot) {
      EXPECT_EQ(adapters_.contains(sequence.slot) ? adapters_[sequence.slot] : 0, sequence.adapter)
          << "the adapter of sequence " << row.id.value() << " left its slot";
    }
    EXPECT_GT(row.count, 0);
    if (sequence.num_computed < 0) {
      if (!stopped_.contains(row.id)) {
        EXPECT_EQ(row.start % config_.block_size, 0) << "prefix hits are whole blocks";
        EXPECT_FALSE(sequence.prompt_logprobs && row.start > 0) << "prompt_logprobs take no prefix hits";
      }
      sequence.num_computed = row.start;
    }
    EXPECT_EQ(row.start, sequence.num_computed) << "every position once, in order: sequence " << row.id.value();
    const auto end = static_cast<size_t>(row.start + row.count);
    EXPECT_LE(end, sequence.tokens.size()) << "sequence " << row.id.value() << " computes tokens it does not have";
    EXPECT_LE(end, sequence.table.size() * static_cast<size_t>(config_.block_size));
    EXPECT_EQ(row.sample, end == sequence.tokens.size()) << "draws after its last token, and only then";
    uint64_t digest = digest_of(sequence.adapter, {}, 0);
    for (int32_t i = 0; i < row.start; ++i) {
      digest = mix_digest(digest, static_cast<uint64_t>(sequence.tokens[static_cast<size_t>(i)]));
      EXPECT_EQ(kv(sequence, i), digest) << "sequence " << row.id.value() << " reads another's KV at position " << i;
    }
  }

  std::vector<float> prompt_logprobs(const StepRow& row) const {
    const RankSequence& sequence = sequences_.at(row.id);
    std::vector<float> values;
    if (!sequence.prompt_logprobs) return values;
    for (int32_t i = row.start + 1; i <= std::min(row.start + row.count, sequence.prompt_size - 1); ++i) {
      values.push_back(-static_cast<float>(i));
    }
    return values;
  }

  RowResult compute(const StepRow& row) {
    RankSequence& sequence = sequences_.at(row.id);
    const int32_t end = row.start + row.count;
    uint64_t digest = digest_of(sequence.adapter, sequence.tokens, static_cast<size_t>(row.start));
    for (int32_t i = row.start; i < end; ++i) {
      digest = mix_digest(digest, static_cast<uint64_t>(sequence.tokens[static_cast<size_t>(i)]));
      kv(sequence, i) = digest;
      ++num_positions_computed_;
    }
    sequence.num_computed = end;
    RowResult result;
    result.id = row.id;
    if (row.sample) {
      const auto diverges = diverging.find(row.id);
      const bool no_token = diverges != diverging.end() && end >= diverges->second;
      result.token_id = !no_token                     ? token_drawn(digest, vocabulary_)
                        : forbidding.contains(row.id) ? kAllForbidden
                                                      : kNoToken;
      sequence.tokens.push_back(std::max(result.token_id, 0));
    }
    return result;
  }

  EngineConfig config_;
  int32_t vocabulary_;
  uint64_t last_step_ = 0;
  int64_t num_positions_computed_ = 0;
  std::vector<uint64_t> kv_;  // [num_blocks, block_size]
  std::map<SlotId, uint64_t> adapters_;
  std::unordered_map<SequenceId, RankSequence> sequences_;
  std::set<SequenceId> stopped_;  // they may go on in the middle of a block
};

}  // namespace lorikeet::engine::testing
