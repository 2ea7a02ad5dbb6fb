#include "actors/head/in_flight_plans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using engine::StepId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const InFlightPlans::TimePoint kNow{};

engine::StepResult result(int32_t rank, uint64_t step, std::vector<int32_t> tokens) {
  engine::StepResult made;
  made.step = StepId(step);
  made.rank = rank;
  for (size_t i = 0; i < tokens.size(); ++i) {
    engine::RowResult row;
    row.id = SequenceId(i + 1);
    row.token_id = tokens[i];
    made.rows.push_back(row);
  }
  return made;
}

TEST(InFlightPlans, GivesRank0sResultOnceAllRanksHaveAnswered) {
  InFlightPlans plans(2);
  plans.sent(StepId(1), 2, kNow);
  auto full = result(0, 1, {5, 6});
  full.rows[0].logprobs = {{5, -0.5F}};
  ASSERT_TRUE(plans.add(full));
  EXPECT_FALSE(plans.take_agreed(kNow));
  EXPECT_THAT(plans.unanswered(), ElementsAre(1));
  ASSERT_TRUE(plans.add(result(1, 1, {5, 6})));
  const auto agreed = plans.take_agreed(kNow);
  ASSERT_TRUE(agreed);
  EXPECT_EQ(*agreed, full);
  EXPECT_EQ(plans.size(), 0u);
}

TEST(InFlightPlans, KeepsTheOrderOfStepsWhenOneRankIsAhead) {
  InFlightPlans plans(2);
  plans.sent(StepId(1), 1, kNow);
  plans.sent(StepId(2), 1, kNow);
  ASSERT_TRUE(plans.add(result(1, 1, {5})));
  ASSERT_TRUE(plans.add(result(1, 2, {6})));
  EXPECT_FALSE(plans.take_agreed(kNow));
  ASSERT_TRUE(plans.add(result(0, 1, {5})));
  EXPECT_EQ(plans.take_agreed(kNow)->step, StepId(1));
  EXPECT_FALSE(plans.take_agreed(kNow));
  ASSERT_TRUE(plans.add(result(0, 2, {6})));
  EXPECT_EQ(plans.take_agreed(kNow)->step, StepId(2));
}

TEST(InFlightPlans, TellsWhichRanksDisagreeAboutWhat) {
  InFlightPlans plans(3);
  plans.sent(StepId(1), 2, kNow);
  ASSERT_TRUE(plans.add(result(0, 1, {5, 6})));
  ASSERT_TRUE(plans.add(result(1, 1, {5, 6})));
  const auto ok = plans.add(result(2, 1, {5, 7}));
  ASSERT_FALSE(ok);
  EXPECT_THAT(ok.error().message, HasSubstr("ranks 0 and 2 disagree in row 1 of step 1: token 6"));
}

TEST(InFlightPlans, RefusesWhatWasNotAsked) {
  InFlightPlans plans(2);
  plans.sent(StepId(1), 1, kNow);
  EXPECT_FALSE(plans.add(result(0, 2, {5})));
  EXPECT_FALSE(plans.add(result(2, 1, {5})));
  EXPECT_FALSE(plans.add(result(-1, 1, {5})));
  EXPECT_FALSE(plans.add(result(0, 1, {5, 6})));
  EXPECT_TRUE(plans.add(result(0, 1, {5})));
  EXPECT_FALSE(plans.add(result(0, 1, {5})));
}

TEST(InFlightPlans, PassesOnTheErrorOfARank) {
  InFlightPlans plans(2);
  plans.sent(StepId(1), 1, kNow);
  auto failed = result(1, 1, {});
  failed.error = "rank 0 is lost";
  const auto ok = plans.add(failed);
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().message, "rank 1: rank 0 is lost");
}

TEST(InFlightPlans, CountTheTimeOfAPlanFromTheAnswerToTheOneBeforeIt) {
  InFlightPlans plans(1);
  EXPECT_FALSE(plans.oldest_began());
  plans.sent(StepId(1), 1, kNow + std::chrono::seconds(1));
  plans.sent(StepId(2), 1, kNow + std::chrono::seconds(2));
  EXPECT_EQ(plans.oldest_began(), kNow + std::chrono::seconds(1));
  ASSERT_TRUE(plans.add(result(0, 1, {5})));
  ASSERT_TRUE(plans.take_agreed(kNow + std::chrono::seconds(20)));
  EXPECT_EQ(plans.oldest_began(), kNow + std::chrono::seconds(20));
  plans.sent(StepId(3), 1, kNow + std::chrono::seconds(21));
  ASSERT_TRUE(plans.add(result(0, 2, {5})));
  ASSERT_TRUE(plans.take_agreed(kNow + std::chrono::seconds(20)));
  EXPECT_EQ(plans.oldest_began(), kNow + std::chrono::seconds(21)) << "it cannot have begun before it was sent";
  plans.clear();
  EXPECT_FALSE(plans.oldest_began());
}

}  // namespace
}  // namespace lorikeet::actors
