#include "launcher/bench_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PrefillLengths, AreThoseOfTheDefaultsThatFitOrTheLongest) {
  EXPECT_THAT(*prefill_lengths({}, 100'000), ElementsAre(512, 2048, 8192));
  EXPECT_THAT(*prefill_lengths({}, 2048), ElementsAre(512, 2048));
  EXPECT_THAT(*prefill_lengths({}, 511), ElementsAre(511));
  EXPECT_THAT(*prefill_lengths({}, 1), ElementsAre(1));
}

TEST(PrefillLengths, AreRefusedBeforeAnythingIsMeasuredWhereOneThatWasAskedForDoesNotFit) {
  EXPECT_THAT(*prefill_lengths({7, 3}, 7), ElementsAre(7, 3));
  const auto refused = prefill_lengths({7, 8}, 7);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("--input-len 8"));
}

}  // namespace
}  // namespace lorikeet::launcher
