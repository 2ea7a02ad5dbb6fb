#include "actors/head/rank_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

class RankGroupTest : public ::testing::Test {
 protected:
  Result<void> admit(int32_t rank, int32_t pid, uint64_t epoch = 1) {
    return group_.admit(rank, pid, epoch, "host", "cpu");
  }

  RankGroup group_{2, 1};
};

TEST_F(RankGroupTest, ServesOnceAllRanksHaveCome) {
  ASSERT_TRUE(admit(0, 10));
  ASSERT_TRUE(admit(1, 11));
  ASSERT_TRUE(group_.loaded(0, {8, 1, 1}));
  EXPECT_FALSE(group_.all_loaded());
  ASSERT_TRUE(group_.loaded(1, {6, 1, 1}));
  EXPECT_TRUE(group_.all_loaded());
  EXPECT_EQ(group_.num_blocks(), 6);
  ASSERT_TRUE(group_.ready(0));
  EXPECT_FALSE(group_.serving());
  ASSERT_TRUE(group_.ready(1));
  EXPECT_TRUE(group_.serving());
}

TEST_F(RankGroupTest, KnowsWhetherAllRanksHaveTheKvCacheThatTheyHadLast) {
  const auto keeps = [this](uint64_t epoch, uint64_t first, uint64_t second) {
    if (epoch > 1) {
      group_.lose();
      group_.start_epoch(epoch);
    }
    RankLoaded loaded{8, 1, 1};
    EXPECT_TRUE(admit(0, 10, epoch) && admit(1, 11, epoch));
    loaded.kv_epoch = first;
    EXPECT_TRUE(group_.loaded(0, loaded));
    loaded.kv_epoch = second;
    EXPECT_TRUE(group_.loaded(1, loaded));
    return group_.keeps_kv();
  };
  EXPECT_FALSE(keeps(1, 0, 0));
  EXPECT_TRUE(keeps(2, 1, 1));
  EXPECT_FALSE(keeps(3, 1, 0)) << "one makes it anew";
  EXPECT_TRUE(keeps(4, 1, 3));
  EXPECT_FALSE(keeps(5, 1, 1)) << "one that it had long ago, on another host";
  EXPECT_FALSE(keeps(6, 1, 3)) << "not the last one's";
  EXPECT_FALSE(keeps(7, 0, 3));
  group_.lose();
  group_.start_epoch(8);
  ASSERT_TRUE(admit(0, 10, 8));
  EXPECT_TRUE(keeps(9, 7, 3)) << "of a group that did not get so far nothing is known";
}

TEST_F(RankGroupTest, TakesARepeatedHelloForTheSame) {
  ASSERT_TRUE(admit(0, 10));
  EXPECT_TRUE(admit(0, 10));
  EXPECT_FALSE(admit(0, 12));
}

TEST_F(RankGroupTest, RefusesStrangers) {
  EXPECT_FALSE(admit(2, 10));
  EXPECT_FALSE(admit(-1, 10));
  EXPECT_THAT(admit(0, 10, 2).error().message, HasSubstr("is of epoch 2, the group is of epoch 1"));
}

TEST_F(RankGroupTest, RefusesStatesOutOfOrder) {
  EXPECT_FALSE(group_.loaded(0, {8, 1, 1}));
  ASSERT_TRUE(admit(0, 10));
  EXPECT_FALSE(group_.ready(0));
  EXPECT_FALSE(group_.loaded(5, {8, 1, 1}));
  EXPECT_FALSE(group_.loaded(0, {0, 1, 1}));
  EXPECT_TRUE(group_.loaded(0, {8, 1, 1})) << "it has not loaded with no blocks";
}

TEST_F(RankGroupTest, HearsNothingOfALostEpochAndStartsTheNextFromNothing) {
  ASSERT_TRUE(admit(0, 10));
  group_.lose();
  EXPECT_FALSE(group_.serving());
  EXPECT_FALSE(group_.loaded(0, {8, 1, 1}));
  EXPECT_FALSE(admit(1, 11));
  group_.start_epoch(2);
  EXPECT_FALSE(admit(0, 10, 1));
  EXPECT_TRUE(admit(0, 20, 2));
  EXPECT_EQ(group_.members()[0].pid, 20);
  EXPECT_EQ(group_.members()[1].state, RankGroup::RankState::absent);
}

}  // namespace
}  // namespace lorikeet::actors
