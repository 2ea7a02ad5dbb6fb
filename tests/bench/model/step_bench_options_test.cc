#include "bench/model/step_bench_options.h"

#include <gtest/gtest.h>

#include <vector>

namespace lorikeet::bench {
namespace {

std::optional<StepBenchOptions> parse(std::vector<std::string> flags) {
  flags.insert(flags.begin(), "decode_step_gpu_bench");
  std::vector<char*> argv;
  for (std::string& flag : flags) argv.push_back(flag.data());
  return parse_step_bench_options(static_cast<int>(argv.size()), argv.data());
}

TEST(StepBenchOptions, AreAFactorAtATimeUnlessTheWholeTableIsAskedFor) {
  const auto plain = parse({});
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->full, "");
  const auto full = parse({"--full", "state", "--seconds", "12.5"});
  ASSERT_TRUE(full);
  EXPECT_EQ(full->full, "state");
  EXPECT_EQ(full->seconds, 12.5);
}

TEST(StepBenchOptions, RefuseTheWholeTableOverSeveralRanksAndFlagsThatThereAreNot) {
  EXPECT_FALSE(parse({"--full", "state", "--tensor-parallel-size", "2"}));
  EXPECT_TRUE(parse({"--tensor-parallel-size", "2"}));
  EXPECT_FALSE(parse({"--full"}));
  EXPECT_FALSE(parse({"--fulll", "state"}));
}

TEST(StepBenchOptions, TimeARankAloneWhereItNeedsNothingFromTheOther) {
  const auto alone = parse({"--alone", "--only", "batches"});
  ASSERT_TRUE(alone);
  EXPECT_TRUE(alone->alone);
  EXPECT_EQ(alone->ranks, 2);
  EXPECT_FALSE(parse({"--alone"}));
  EXPECT_FALSE(parse({"--alone", "--only", "draws"}));
  EXPECT_FALSE(parse({"--alone", "--only", "batches", "--full", "state"}));
}

TEST(StepPace, TakesFewerStepsWhereTheyAreSlowButNotTooFew) {
  constexpr StepPace pace{12, 48, 0.25};
  const auto steps_of = [&](double each) {
    int steps = 0;
    while (pace.goes_on(steps, each * steps)) ++steps;
    return steps;
  };
  EXPECT_EQ(steps_of(0.003), 48);
  EXPECT_EQ(steps_of(0.0125), 20);
  EXPECT_EQ(steps_of(0.1), 12);
  constexpr StepPace always{48, 48};
  EXPECT_TRUE(always.goes_on(47, 1e9));
  EXPECT_FALSE(always.goes_on(48, 0));
}

}  // namespace
}  // namespace lorikeet::bench
