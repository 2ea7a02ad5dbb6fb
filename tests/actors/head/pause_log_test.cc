#include "actors/head/pause_log.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;

class PauseLogTest : public ::testing::Test {
 protected:
  PauseLog::TimePoint after(int ms) { return now_ += milliseconds(ms); }

  PauseLog log_;
  PauseLog::TimePoint now_{std::chrono::hours(1)};
};

TEST_F(PauseLogTest, TellsWhatAPauseWasSpentOn) {
  log_.lost(3, "rank 1 does not answer", now_, now_ + milliseconds(20));
  after(20);
  log_.epoch_began("rank 1 was killed by signal 11", true, after(3));
  log_.all_loaded(after(200));
  log_.served(true, after(40));
  EXPECT_EQ(log_.totals().ended, 0u) << "nobody has a token yet";
  log_.token(after(7));
  log_.token(after(9));
  ASSERT_EQ(log_.latest().size(), 1u);
  const PauseStatus& pause = log_.latest()[0];
  EXPECT_EQ(pause.epoch, 3u);
  EXPECT_EQ(pause.why, "rank 1 was killed by signal 11") << "what the supervisor knows";
  EXPECT_TRUE(pause.by_rank);
  EXPECT_EQ(pause.detect_us, 20'000u);
  EXPECT_EQ(pause.fence_us, 3'000u);
  EXPECT_EQ(pause.start_us, 200'000u);
  EXPECT_EQ(pause.join_us, 40'000u);
  EXPECT_EQ(pause.first_token_us, 7'000u);
  EXPECT_EQ(pause.total_us, 270'000u);
  EXPECT_EQ(log_.totals().total_us, 270'000u);
  EXPECT_EQ(log_.totals().losses_by_rank, 1u);
}

TEST_F(PauseLogTest, TakesALossBeforeTheGroupServesForTheSamePause) {
  log_.lost(3, "rank 1 died", std::nullopt, now_);
  log_.epoch_began("", false, after(5));
  log_.lost(4, "rank 0 died", std::nullopt, after(100));
  log_.epoch_began("", false, after(5));
  log_.all_loaded(after(200));
  log_.served(true, after(40));
  log_.token(after(10));
  ASSERT_EQ(log_.latest().size(), 1u);
  const PauseStatus& pause = log_.latest()[0];
  EXPECT_EQ(pause.losses, 2u);
  EXPECT_EQ(pause.epoch, 4u);
  EXPECT_EQ(pause.why, "rank 0 died");
  EXPECT_EQ(pause.again_us, 100'000u);
  EXPECT_EQ(pause.total_us, 360'000u);
  EXPECT_EQ(log_.totals().losses, 2u);
  EXPECT_EQ(log_.totals().ended, 1u);
}

TEST_F(PauseLogTest, EndsWithTheGroupWhereNobodyWaitsForATokenAndKeepsTheLatest) {
  for (uint64_t epoch = 1; epoch <= PauseLog::kMaxKept + 3; ++epoch) {
    log_.lost(epoch, "rank 0 died", std::nullopt, now_);
    log_.epoch_began("", false, after(1));
    log_.all_loaded(after(1));
    log_.served(false, after(1));
    log_.token(after(1000));
  }
  EXPECT_EQ(log_.totals().ended, PauseLog::kMaxKept + 3);
  ASSERT_EQ(log_.latest().size(), PauseLog::kMaxKept);
  EXPECT_EQ(log_.latest().back().epoch, PauseLog::kMaxKept + 3);
  EXPECT_EQ(log_.latest().back().total_us, 3'000u);
}

TEST_F(PauseLogTest, HearsNothingOutOfTurn) {
  log_.all_loaded(now_);
  log_.served(true, now_);
  log_.token(now_);
  log_.epoch_began("", true, now_);
  EXPECT_EQ(log_.totals().losses, 0u);
  EXPECT_EQ(log_.totals().ended, 0u);
}

}  // namespace
}  // namespace lorikeet::actors
