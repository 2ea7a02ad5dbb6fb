#include "actors/wire/step_pace.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

engine::StepPlan plan_of(int32_t start, int32_t count) {
  engine::StepPlan plan;
  plan.rows.push_back({engine::SequenceId(1), start, count, true});
  return plan;
}

// On a slow CPU a token takes 10 ms to compute, and its step at least 100 ms for the weights.
model::StepCost cost() {
  model::StepCost cost;
  cost.layer_bytes = 200'000'000;
  cost.layer_flops_per_token = 1e7;
  return cost;
}

TEST(StepPace, GivesAStepTimeForWhatItMustMoveAndCompute) {
  const StepPace pace(cost(), false, seconds(30));
  const auto decode = pace.floor_of(plan_of(100, 1)), prompt = pace.floor_of(plan_of(0, 2'000));
  EXPECT_FALSE(decode.by_operations);
  EXPECT_TRUE(prompt.by_operations);
  EXPECT_EQ(pace.limit_of(decode), seconds(30) + milliseconds(400));
  EXPECT_EQ(pace.limit_of(prompt), seconds(30 + 80)) << "not yet seen: as on a slow machine";
  const StepPace gpu(cost(), true, seconds(5));
  EXPECT_EQ(gpu.limit_of(gpu.floor_of(plan_of(0, 2'000))), seconds(5) + milliseconds(8));
}

TEST(StepPace, CountsWhatAttentionReadsAndComputes) {
  model::StepCost of_context;
  of_context.kv_bytes_per_position = 2'000'000;
  of_context.attention_flops_per_pair = 1e6;
  const StepPace pace(of_context, false, seconds(0));
  EXPECT_EQ(pace.limit_of(pace.floor_of(plan_of(99, 1))), milliseconds(400)) << "the bytes of 100 positions";
  EXPECT_EQ(pace.limit_of(pace.floor_of(plan_of(100, 1'000))), milliseconds(4 * (100'000 + 500'500)));
}

TEST(StepPace, LearnsHowFastStepsOfEachKindAre) {
  StepPace pace(cost(), false, seconds(1));
  const auto decode = pace.floor_of(plan_of(100, 1)), prompt = pace.floor_of(plan_of(0, 2'000));
  for (uint64_t i = 1; i < StepPace::kEnough; ++i) pace.took(decode, milliseconds(50));
  EXPECT_EQ(pace.limit_of(decode), milliseconds(1'400)) << "a few may be luck";
  pace.took(decode, milliseconds(25));
  EXPECT_EQ(pace.limit_of(decode), milliseconds(1'200)) << "the worst of them counts";
  pace.took(decode, seconds(3));
  EXPECT_EQ(pace.limit_of(decode), milliseconds(1'200)) << "but not one that stands out: somebody had stopped it";
  EXPECT_EQ(pace.limit_of(prompt), seconds(81)) << "of the other kind nothing is known";
  for (uint64_t i = 0; i < StepPace::kEnough; ++i) pace.took(prompt, seconds(100));
  EXPECT_EQ(pace.limit_of(prompt), seconds(401)) << "a machine that is slower than any is given its time";
  for (size_t i = 0; i < StepPace::kSeen; ++i) pace.took(decode, milliseconds(10));
  EXPECT_EQ(pace.limit_of(decode), milliseconds(1'040)) << "what is long ago is forgotten";
}

TEST(StepPace, GivesGrammarsTheirTimeAndLearnsNothingOfIt) {
  StepPace pace(cost(), false, seconds(1));
  engine::StepPlan plan = plan_of(100, 1);
  const auto decode = pace.floor_of(plan);
  plan.starts.emplace_back();
  plan.starts.back().sampling.answer.grammar_kind = 1;
  const auto compiling = pace.floor_of(plan);
  EXPECT_EQ(pace.limit_of(compiling), pace.limit_of(decode) + StepPace::kForGrammars);
  for (uint64_t i = 0; i < StepPace::kEnough; ++i) pace.took(compiling, seconds(20));
  EXPECT_EQ(pace.limit_of(decode), milliseconds(1'400));
}

TEST(StepPace, HasALimitWhateverTheStep) {
  StepPace pace(cost(), false, seconds(1));
  for (uint64_t i = 0; i < StepPace::kEnough; ++i) pace.took({1e-9, false}, seconds(100));
  EXPECT_EQ(pace.limit_of({1e9, false}), StepPace::kLongest + seconds(1));
  pace.took({}, seconds(1));
  EXPECT_EQ(pace.limit_of({}), seconds(1)) << "a step of nothing";
}

TEST(StepPace, AllowsSecondsOnAGpuAndWhatTheFlagSaysElsewhere) {
  ServerOptions options;
  EXPECT_EQ(step_allowance(options), seconds(30));
  options.device = "cuda";
  EXPECT_EQ(step_allowance(options), seconds(7));
  options.heartbeat_ms = 1'000;
  EXPECT_EQ(step_allowance(options), seconds(14)) << "a silent peer is noticed before";
  options.rank_timeout_ms = 700;
  EXPECT_EQ(step_allowance(options), milliseconds(700));
}

}  // namespace
}  // namespace lorikeet::actors
