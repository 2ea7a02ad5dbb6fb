#include "engine/plan_step.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <deque>
#include <random>

namespace lorikeet::engine {
namespace {

// A view written down: who runs, who waits. Blocks are of 4 positions.
class PlanStepTest : public ::testing::Test {
 protected:
  static constexpr int32_t kBlockSize = 4;

  // A decoding sequence: `positions` of it computed, in a table that just holds them.
  void decoding(int32_t positions, int32_t group = 0) {
    running(positions, 1, blocks_for(positions, kBlockSize), group);
  }

  // A sequence in its prompt: its table covers all of it.
  void prefilling(int32_t computed, int32_t remaining, int32_t group = 0) {
    running(computed, remaining, blocks_for(computed + remaining, kBlockSize), group);
  }

  // Everything that it may compute is in flight.
  void drained(int32_t positions) { running(positions, 0, blocks_for(positions, kBlockSize), 0); }

  void waiting(int32_t num_tokens, int32_t group = 0, PrefixHits hits = {}) {
    waiting_.push_back({GroupId(group), num_tokens});
    hits_.push_back(hits);
  }

  // "preempted 3 2; 0+1 1+1 w0+7": rows of running sequences and of waiting ones, with how many positions.
  std::string plan() {
    SchedulerView view;
    view.running = running_;
    view.waiting = waiting_;
    view.served = served_;
    view.reference_counts = reference_counts_;
    view.free_blocks = free_blocks_;
    view.prefix_hits = [this](size_t i) {
      ++num_lookups_;
      return hits_[i];
    };
    const Schedule schedule = plan_step(view, limits_);
    EXPECT_EQ(plan_step(view, limits_).rows, schedule.rows) << "not deterministic";
    num_lookups_ /= 2;
    std::string text;
    if (!schedule.preempted.empty()) {
      text = "preempted";
      for (const int32_t i : schedule.preempted) text += fmt::format(" {}", i);
      text += "; ";
    }
    for (const ScheduledRow& row : schedule.rows) {
      text += fmt::format("{}{}+{} ", row.is_new ? "w" : "", row.index, row.count);
    }
    if (!schedule.rows.empty()) text.pop_back();
    return text;
  }

  void share_block(size_t from, size_t to) {
    const BlockId block = tables_[from][0];
    --reference_counts_[static_cast<size_t>(tables_[to][0].value())];
    tables_[to][0] = block;
    ++reference_counts_[static_cast<size_t>(block.value())];
  }

  SchedulerLimits limits_{8, 16, kBlockSize};
  int32_t free_blocks_ = 100;
  std::vector<int64_t> served_ = std::vector<int64_t>(4);
  int num_lookups_ = 0;

 private:
  void running(int32_t computed, int32_t remaining, int32_t num_blocks, int32_t group) {
    std::vector<BlockId>& table = tables_.emplace_back();
    for (int32_t i = 0; i < num_blocks; ++i) {
      table.push_back(BlockId(static_cast<int32_t>(reference_counts_.size())));
      reference_counts_.push_back(1);
    }
    running_.push_back({GroupId(group), remaining, computed, table});
  }

  std::vector<RunningSequence> running_;
  std::deque<std::vector<BlockId>> tables_;
  std::vector<WaitingSequence> waiting_;
  std::vector<PrefixHits> hits_;
  std::vector<int32_t> reference_counts_;
};

TEST_F(PlanStepTest, DoesNothingWithNobody) {
  EXPECT_EQ(plan(), "");
}

TEST_F(PlanStepTest, DecodesEveryoneAndThenFillsUpWithPrompts) {
  decoding(5);
  prefilling(4, 6);
  decoding(9);
  drained(7);
  waiting(20);
  waiting(3);
  EXPECT_EQ(plan(), "0+1 2+1 1+6 w0+8") << "16 tokens in all, the new prompt in chunks";
}

TEST_F(PlanStepTest, CutsAPromptIntoChunks) {
  prefilling(0, 40);
  prefilling(0, 2);
  EXPECT_EQ(plan(), "0+16");
}

TEST_F(PlanStepTest, AdmitsAsManyAsMayRun) {
  limits_.max_num_seqs = 4;
  decoding(5);
  decoding(5);
  for (int i = 0; i < 5; ++i) waiting(2);
  EXPECT_EQ(plan(), "0+1 1+1 w0+2 w1+2");
}

TEST_F(PlanStepTest, DoesNotComputePrefixHits) {
  waiting(11, 0, {2, 0});
  EXPECT_EQ(plan(), "w0+3");
}

TEST_F(PlanStepTest, TakesABlockOnlyWhereTheLastOneIsFull) {
  free_blocks_ = 1;
  decoding(5);
  decoding(8);
  decoding(6);
  EXPECT_EQ(plan(), "0+1 1+1 2+1");
}

TEST_F(PlanStepTest, PreemptsTheYoungestWhenBlocksRunOut) {
  free_blocks_ = 0;
  decoding(8);
  decoding(5);
  decoding(4);
  EXPECT_EQ(plan(), "preempted 2; 0+1 1+1");
}

TEST_F(PlanStepTest, PreemptsAYoungPromptForAnOldToken) {
  free_blocks_ = 0;
  decoding(8);
  decoding(6);
  prefilling(0, 30);
  EXPECT_EQ(plan(), "preempted 2; 0+1 1+1");
}

TEST_F(PlanStepTest, PreemptsTheOneThatAsksWhenItIsTheYoungest) {
  free_blocks_ = 0;
  decoding(5);
  decoding(8);
  EXPECT_EQ(plan(), "preempted 1; 0+1");
}

TEST_F(PlanStepTest, GetsNoBlockOfAPreemptedSequenceThatOthersHold) {
  free_blocks_ = 0;
  decoding(4);
  decoding(4);
  decoding(4);
  decoding(4);
  share_block(0, 3);
  EXPECT_EQ(plan(), "preempted 3 2 1; 0+1") << "3 shares its only block; 2 gives one, for 0; then 1 has to go";
}

TEST_F(PlanStepTest, CountsABlockThatTwoPreemptedOnesShareOnce) {
  free_blocks_ = 0;
  decoding(8);
  decoding(4);
  decoding(4);
  share_block(1, 2);
  EXPECT_EQ(plan(), "preempted 2 1; 0+1");
}

TEST_F(PlanStepTest, AdmitsNobodyInAStepThatPreempts) {
  free_blocks_ = 0;
  decoding(8);
  decoding(21);
  waiting(1);
  EXPECT_EQ(plan(), "preempted 1; 0+1") << "there would be room";
}

TEST_F(PlanStepTest, AdmitsOnlyWithABlockLeftForEachThatRuns) {
  decoding(5);
  decoding(5);
  waiting(8);
  free_blocks_ = 3;
  EXPECT_EQ(plan(), "0+1 1+1");
  free_blocks_ = 4;
  EXPECT_EQ(plan(), "0+1 1+1 w0+8");
}

TEST_F(PlanStepTest, NeedsNoReserveWhenNothingRuns) {
  waiting(8);
  free_blocks_ = 2;
  EXPECT_EQ(plan(), "w0+8");
}

TEST_F(PlanStepTest, ReservesAllOfAPromptThatIsComputedInChunks) {
  waiting(40);
  waiting(40);
  free_blocks_ = 12;
  limits_.max_num_batched_tokens = 50;
  EXPECT_EQ(plan(), "w0+40");
}

TEST_F(PlanStepTest, CountsHitsThatNobodyHolds) {
  decoding(5);
  waiting(10, 0, {2, 2});
  free_blocks_ = 3;
  EXPECT_EQ(plan(), "0+1") << "the two hits are among the free blocks";
  free_blocks_ = 4;
  EXPECT_EQ(plan(), "0+1 w0+2");
}

TEST_F(PlanStepTest, LetsNobodyOvertakeTheOneThatDoesNotFit) {
  decoding(5);
  waiting(40, 1);
  waiting(2, 2);
  waiting(2, 1);
  served_ = {0, 5, 10, 0};
  free_blocks_ = 10;
  EXPECT_EQ(plan(), "0+1");
  EXPECT_EQ(num_lookups_, 1);
}

TEST_F(PlanStepTest, ContinuesPromptsWhenNobodyCanBeAdmitted) {
  prefilling(0, 5, 2);
  waiting(40, 1);
  served_ = {0, 5, 10, 0};
  free_blocks_ = 3;
  EXPECT_EQ(plan(), "0+5");
}

TEST_F(PlanStepTest, ServesTheGroupThatGotTheLeast) {
  prefilling(0, 12, 0);
  prefilling(0, 12, 0);
  prefilling(0, 6, 1);
  waiting(5, 2);
  waiting(5, 2);
  served_ = {200, 150, 140, 0};
  EXPECT_EQ(plan(), "w0+5 w1+5 2+6");
}

TEST_F(PlanStepTest, CountsWhatItGivesWithinAStep) {
  waiting(3, 0);
  waiting(3, 0);
  waiting(3, 1);
  waiting(3, 1);
  served_ = {0, 2, 0, 0};
  EXPECT_EQ(plan(), "w0+3 w2+3 w1+3 w3+3");
}

TEST_F(PlanStepTest, TakesTheLowerGroupOfTwoThatGotTheSame) {
  waiting(3, 2);
  waiting(3, 1);
  EXPECT_EQ(plan(), "w1+3 w0+3");
}

TEST_F(PlanStepTest, GoesOnWithAGroupsPromptsBeforeItsQueue) {
  prefilling(0, 10, 1);
  waiting(9, 1);
  EXPECT_EQ(plan(), "0+10 w0+6");
}

TEST_F(PlanStepTest, ObeysItsLimitsWhateverItIsShown) {
  std::mt19937 random(3);
  const auto draw = [&](int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random() % static_cast<uint32_t>(high - low + 1));
  };
  for (int round = 0; round < 3000; ++round) {
    SchedulerLimits limits{draw(1, 12), 0, kBlockSize};
    limits.max_num_batched_tokens = draw(limits.max_num_seqs, 60);
    std::deque<std::vector<BlockId>> tables;
    std::vector<RunningSequence> running;
    std::vector<WaitingSequence> waiting;
    std::vector<int32_t> reference_counts;
    std::vector<int64_t> served(3);
    for (int64_t& tokens : served) tokens = draw(0, 50);
    for (int32_t i = draw(0, limits.max_num_seqs); i > 0; --i) {
      const int32_t computed = draw(0, 20), remaining = draw(0, 2) == 0 ? draw(2, 30) : draw(0, 1);
      auto& table = tables.emplace_back();
      const int32_t covered = remaining == 1 ? computed : computed + remaining;
      for (int32_t b = 0; b < blocks_for(covered, kBlockSize); ++b) {
        if (b == 0 && !reference_counts.empty() && draw(0, 2) == 0) {
          table.push_back(BlockId(0));
          ++reference_counts[0];
        } else {
          table.push_back(BlockId(static_cast<int32_t>(reference_counts.size())));
          reference_counts.push_back(1);
        }
      }
      running.push_back({GroupId(draw(0, 2)), remaining, computed, table});
    }
    for (int32_t i = draw(0, 10); i > 0; --i) waiting.push_back({GroupId(draw(0, 2)), draw(1, 40)});
    SchedulerView view{running, waiting, served, reference_counts, draw(0, 20), [](size_t) { return PrefixHits(); }};
    const Schedule schedule = plan_step(view, limits);

    int32_t free_blocks = view.free_blocks, num_tokens = 0;
    std::vector<int32_t> counts = reference_counts;
    const size_t num_kept = running.size() - schedule.preempted.size();
    for (size_t i = 0; i < schedule.preempted.size(); ++i) {
      ASSERT_EQ(schedule.preempted[i], static_cast<int32_t>(running.size() - 1 - i)) << "the youngest first";
      for (const BlockId block : running[running.size() - 1 - i].table) {
        if (--counts[static_cast<size_t>(block.value())] == 0) ++free_blocks;
      }
    }
    std::vector<bool> seen_running(running.size()), seen_waiting(waiting.size());
    size_t num_new = 0;
    for (const ScheduledRow& row : schedule.rows) {
      const auto i = static_cast<size_t>(row.index);
      num_tokens += row.count;
      ASSERT_GT(row.count, 0);
      if (row.is_new) {
        ASSERT_FALSE(seen_waiting[i]);
        seen_waiting[i] = true;
        ++num_new;
        free_blocks -= blocks_for(waiting[i].num_tokens, kBlockSize);
        ASSERT_LE(row.count, waiting[i].num_tokens);
      } else {
        ASSERT_LT(i, num_kept);
        ASSERT_FALSE(seen_running[i]);
        seen_running[i] = true;
        ASSERT_LE(row.count, running[i].remaining);
        free_blocks -= std::max(0, blocks_for(running[i].num_computed + row.count, kBlockSize) -
                                       static_cast<int32_t>(running[i].table.size()));
      }
    }
    ASSERT_GE(free_blocks, 0) << "blocks that are not there";
    ASSERT_LE(num_tokens, limits.max_num_batched_tokens);
    ASSERT_LE(num_kept + num_new, static_cast<size_t>(limits.max_num_seqs));
    for (size_t i = 0; i < num_kept; ++i) {
      if (running[i].remaining == 1) {
        ASSERT_TRUE(seen_running[i]) << "decoding never waits";
      }
    }
  }
}

TEST_F(PlanStepTest, RefusesABudgetThatCannotServeEveryone) {
  limits_.max_num_batched_tokens = 7;
  EXPECT_DEATH(plan(), "max_num_batched_tokens");
}

}  // namespace
}  // namespace lorikeet::engine
