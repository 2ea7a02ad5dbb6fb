#include "launcher/load_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LoadPlan, TakesAdaptersInTurnOrDrawsThem) {
  const std::vector<std::string> adapters = {"a", "b", "-"};
  EXPECT_THAT(draw_adapters(4, adapters, AdapterMix::round_robin, 1, 0), ElementsAre("a", "b", "-", "a"));
  EXPECT_THAT(draw_adapters(2, {}, AdapterMix::zipf, 1, 0), ElementsAre("-", "-"));
  const auto count = [&](AdapterMix mix, const std::string& adapter) {
    const auto drawn = draw_adapters(30'000, adapters, mix, 1, 7);
    return static_cast<double>(std::count(drawn.begin(), drawn.end(), adapter)) / 30'000;
  };
  // Six standard deviations of a count of 30,000 draws are below 0.018.
  EXPECT_NEAR(count(AdapterMix::uniform, "b"), 1.0 / 3, 0.018);
  EXPECT_NEAR(count(AdapterMix::zipf, "a"), 6.0 / 11, 0.018);
  EXPECT_NEAR(count(AdapterMix::zipf, "-"), 2.0 / 11, 0.018);
}

// The mean distance and its coefficient of variation.
std::pair<double, double> distances(double rate, double burstiness) {
  const auto times = send_times(20'001, rate, burstiness, 3);
  double sum = 0, squares = 0;
  for (size_t i = 1; i < times.size(); ++i) {
    const double distance = times[i] - times[i - 1];
    sum += distance;
    squares += distance * distance;
  }
  const double mean = sum / 20'000;
  return {mean, std::sqrt(squares / 20'000 - mean * mean) / mean};
}

TEST(LoadPlan, KeepsTheRateHoweverBursty) {
  for (const double burstiness : {0.5, 1.0, 4.0}) {
    const auto [mean, variation] = distances(50, burstiness);
    EXPECT_NEAR(mean, 0.02, 0.02 * 6 / std::sqrt(20'000 * burstiness));
    EXPECT_NEAR(variation, 1 / std::sqrt(burstiness), 0.1) << burstiness;
  }
  EXPECT_THAT(send_times(3, 0, 1, 0), ElementsAre(0, 0, 0)) << "no limit";
}

TEST(LoadPlan, ReadsRates) {
  EXPECT_EQ(parse_rate("inf").value(), 0);
  EXPECT_EQ(parse_rate("2.5").value(), 2.5);
  for (const char* wrong : {"", "-1", "fast", "nan"}) EXPECT_FALSE(parse_rate(wrong)) << wrong;
}

TEST(LoadPlan, ReplaysATraceInItsOrder) {
  tests::TempDir scratch;
  tests::write_file(scratch / "trace", R"({"timestamp": 3000, "input_length": 7, "output_length": 2, "hash_ids": [1]}
{"timestamp": 1000, "input_length": 5, "output_length": 3, "adapter": "kjv"}
)");
  const auto trace = read_trace(scratch / "trace", 10).value();
  ASSERT_EQ(trace.size(), 2u);
  EXPECT_EQ(trace[0].adapter, "kjv");
  EXPECT_EQ(trace[0].input_len, 5);
  EXPECT_DOUBLE_EQ(trace[1].seconds, 2);
  tests::write_file(scratch / "trace", "{\"timestamp\": 1, \"input_length\": 0, \"output_length\": 2}\n");
  EXPECT_THAT(read_trace(scratch / "trace", 10).error().message, HasSubstr("line 1: it is not {\"timestamp\""));
}

}  // namespace
}  // namespace lorikeet::launcher
