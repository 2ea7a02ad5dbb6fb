#include "actors/wire/time_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "comm/codec/codec.h"
#include "comm/codec/json_codec.h"

namespace lorikeet::actors {
namespace {

TEST(TimeHistogram, PercentilesAreTheTrueOnesAndAtMostAnEighthMore) {
  std::mt19937_64 random(7);
  TimeHistogram histogram;
  std::vector<uint64_t> all;
  for (int i = 0; i < 5000; ++i) {
    all.push_back(random() >> (20 + random() % 43));
    histogram.add(all.back());
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(histogram.count(), all.size());
  for (const size_t wanted : {1, 17, 2500, 4950, 5000}) {
    const uint64_t truth = all[wanted - 1];
    const uint64_t shown = histogram.percentile(static_cast<double>(wanted) / 5000);
    if (truth >= uint64_t{1} << 42) continue;  // longer than the histogram tells apart
    EXPECT_GE(shown, truth);
    EXPECT_LE(shown, truth + truth / 8 + 1);
  }
}

TEST(TimeHistogram, WithoutDurationsHasNoPercentile) {
  EXPECT_EQ(TimeHistogram().percentile(0.99), 0);
}

TEST(TimeHistogram, TellsOneStretchOfTimeFromTheTotals) {
  TimeHistogram total;
  for (int i = 0; i < 100; ++i) total.add(1'000'000);
  const TimeHistogram before = total;
  for (int i = 0; i < 3; ++i) total.add(4);
  total -= before;
  EXPECT_EQ(total.count(), 3);
  EXPECT_EQ(total.percentile(1), 4);
  total += before;
  EXPECT_EQ(total.count(), 103);
}

TEST(TimeHistogram, SurvivesJson) {
  TimeHistogram histogram;
  for (const uint64_t ns : {0, 7, 8, 15, 16, 17, 31, 32, 3400, 3400, 100'000, 2'000'000'000}) histogram.add(ns);
  const nlohmann::json json = comm::to_json_value(histogram);
  EXPECT_EQ(json[0], nlohmann::json({0, 1}));
  EXPECT_EQ(comm::from_json<TimeHistogram>(json.dump()).value(), histogram);
}

TEST(TimeHistogram, SurvivesTheCodec) {
  TimeHistogram histogram;
  for (const uint64_t ns : {7, 3400, 3400}) histogram.add(ns);
  EXPECT_EQ(comm::decode<TimeHistogram>(comm::encode(histogram)).value(), histogram);
}

TEST(TimeHistogram, GivesItsBucketsInAscendingOrder) {
  TimeHistogram histogram;
  for (const uint64_t ns : {3400, 2, 3400}) histogram.add(ns);
  EXPECT_EQ(histogram.plain(), (TimeHistogram::Plain{{2, 1}, {3583, 2}}));
}

}  // namespace
}  // namespace lorikeet::actors
