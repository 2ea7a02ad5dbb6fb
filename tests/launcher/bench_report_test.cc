#include "launcher/bench_report.h"

#include <gmock/gmock.h>

namespace lorikeet::launcher {
namespace {

using ::testing::HasSubstr;

TEST(BenchReport, AShareIsOneAtTheFloorAndLessBeforeIt) {
  EXPECT_DOUBLE_EQ((Figure{"time", 4, "ms", 1, false, ""}).share(), 0.25);
  EXPECT_DOUBLE_EQ((Figure{"rate", 25, "/s", 100, true, ""}).share(), 0.25);
  EXPECT_DOUBLE_EQ((Figure{"time", 4, "ms", 4, false, ""}).share(), 1);
  EXPECT_DOUBLE_EQ((Figure{"no floor", 4, "ms", 0, false, ""}).share(), 0);
}

TEST(BenchReport, TheTableShowsEveryFigureBesideItsFloor) {
  BenchReport report("latency");
  report.describe("device", "some device");
  report.describe("read_bytes_per_second", 4.674e12);
  report.describe("batch_size", 8);
  report.add({"decode step", 5.5, "ms", 2.75, false, ""});
  report.add({"tokens", 181.8, "tokens/s", 363.6, true, "the same"});
  report.add({"first token", 400, "ms", 0.5, false, "a round trip"});
  const std::string table = report.table();
  EXPECT_THAT(table,
              HasSubstr("bench latency\n  device: some device\n  read_bytes_per_second: 4.67 T\n  batch_size: 8\n"));
  EXPECT_THAT(table, HasSubstr("5.50 ms"));
  EXPECT_THAT(table, HasSubstr("2.75   0.50\n"));
  EXPECT_THAT(table, HasSubstr("363.60   0.50  (the same)\n"));
  EXPECT_THAT(table, HasSubstr("0.5000  <0.01  (a round trip)\n"));
}

TEST(BenchReport, TheJsonHoldsTheSameFigures) {
  BenchReport report("latency");
  report.describe("batch_size", 8);
  report.add({"decode step", 5.5, "ms", 2.75, false, ""});
  report.add({"requests", 3, "/s", 0, true, ""});
  const auto json = report.json();
  EXPECT_EQ(json["bench"], "latency");
  EXPECT_EQ(json["batch_size"], 8);
  ASSERT_EQ(json["figures"].size(), 2u);
  EXPECT_EQ(json["figures"][0]["share"], 0.5);
  EXPECT_FALSE(json["figures"][1].contains("floor"));
}

}  // namespace
}  // namespace lorikeet::launcher
