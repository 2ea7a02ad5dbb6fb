#include "bench/model/step_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <set>

namespace lorikeet::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class StepTableTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  void write(const std::string& text, std::ios::openmode how = std::ios::out) { std::ofstream(path_, how) << text; }
  std::string read() {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  StepTable table(const std::string& executable = "aa", const std::string& device = "A device") {
    return StepTable(path_, executable, device);
  }

  const std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + std::to_string(getpid()));
  const StepPoint point_ = {4096, true, StepKind::plain, 0, 8};
};

TEST(StepPoints, AreAllCombinationsOnceAndThoseOfAGroupTogether) {
  const std::vector<StepPoint> points = step_points(6);
  std::set<std::string> keys, groups;
  for (size_t i = 0; i < points.size(); ++i) {
    EXPECT_TRUE(keys.insert(points[i].key()).second) << points[i].key();
    if (i > 0 && points[i].of_group(points[i - 1])) continue;
    EXPECT_TRUE(groups.insert(std::to_string(points[i].context) + (points[i].fp8 ? "8" : "")).second);
  }
  EXPECT_EQ(groups.size(), 10U);
  // 13 batches: plain twice, adapters twice, at 5 contexts; 5 draws at one; 6 settings of mixed steps at each.
  EXPECT_EQ(points.size(), 13U * 4 * 5 + 13U * 5 + 6U * 5);
  for (const char* key : {"512/fp16/plain/1", "130816/fp8/plain/256", "32512/fp16/own-adapters/64",
                          "512/fp16/draw-5/96", "8192/fp16/mixed-2048/32", "4096/fp16/one-adapter/2"}) {
    EXPECT_EQ(keys.count(key), 1U) << key;
  }
}

TEST_F(StepTableTest, GoesOnWhereTheCallBeforeItStopped) {
  const std::vector<StepPoint> points = step_points(6);
  StepTable first = table();
  EXPECT_EQ(first.next_group(points).front().key(), points.front().key());
  EXPECT_EQ(first.done(points), 0U);
  ASSERT_TRUE(first.add(points[0], {true, 2.5, 2.25, 1.5, 2.75}));
  ASSERT_TRUE(first.add(points[1], {false}));
  StepTable second = table();
  ASSERT_NE(second.find(points[0]), nullptr);
  EXPECT_EQ(second.find(points[0])->ms, 2.5);
  EXPECT_EQ(second.find(points[0])->p99_ms, 2.75);
  ASSERT_NE(second.find(points[1]), nullptr);
  EXPECT_FALSE(second.find(points[1])->fits);
  EXPECT_EQ(second.done(points), 2U);
  const std::vector<StepPoint> group = second.next_group(points);
  EXPECT_EQ(group.front().key(), points[2].key());
  for (const StepPoint& point : group) EXPECT_TRUE(point.of_group(points[0]));
}

TEST_F(StepTableTest, HasNoNextGroupWhenEveryPointIsThere) {
  const std::vector<StepPoint> points = {point_, {512, false, StepKind::mixed, 128, 32}};
  StepTable whole = table();
  for (const StepPoint& point : points) ASSERT_TRUE(whole.add(point, {}));
  EXPECT_TRUE(whole.next_group(points).empty());
}

TEST_F(StepTableTest, TakesTheLastLineOfAPoint) {
  ASSERT_TRUE(table().add(point_, {true, 2, 2, 2, 2}));
  ASSERT_TRUE(table().add(point_, {true, 3, 2, 2, 2}));
  EXPECT_EQ(table().find(point_)->ms, 3);
}

TEST_F(StepTableTest, TakesALineThatWasCutOffAsNoneAndWritesBehindIt) {
  ASSERT_TRUE(table().add(point_, {true, 2, 2, 2, 2}));
  std::string text = read();
  text.pop_back();
  write(text);
  StepTable cut = table();
  EXPECT_EQ(cut.find(point_), nullptr);
  const StepPoint other = {4096, true, StepKind::plain, 0, 16};
  ASSERT_TRUE(cut.add(other, {true, 5, 5, 5, 5}));
  ASSERT_NE(table().find(other), nullptr);
  EXPECT_EQ(table().find(other)->ms, 5);
}

TEST_F(StepTableTest, KnowsNothingOfAnotherExecutableOrDeviceAndLeavesTheirLines) {
  ASSERT_TRUE(table("aa").add(point_, {true, 2, 2, 2, 2}));
  EXPECT_EQ(table("ab").find(point_), nullptr);
  EXPECT_EQ(table("aa", "Another").find(point_), nullptr);
  ASSERT_TRUE(table("ab").add(point_, {true, 4, 2, 2, 2}));
  EXPECT_EQ(table("aa").find(point_)->ms, 2);
}

TEST_F(StepTableTest, IgnoresLinesThatAreNotOfItsMaking) {
  write("aa A-device 4096/fp8/plain/8 1 2 x 4\naa A-device 4096/fp8/plain/8 1 2 3 4 5\naa A-device \nnonsense\n\n");
  EXPECT_EQ(table().find(point_), nullptr);
  write("aa A-device 4096/fp8/plain/8 1 2 3 4\n", std::ios::app);
  EXPECT_EQ(table().find(point_)->floor_ms, 3);
}

TEST_F(StepTableTest, SaysWhereAFileCannotBeWritten) {
  StepTable nowhere("/nonexistent/state", "aa", "b");
  EXPECT_FALSE(nowhere.add(point_, {}));
}

TEST_F(StepTableTest, PrintsWhereATokenCostsMoreThanInASmallerBatch) {
  std::vector<StepPoint> points;
  StepTable figures = table();
  const auto add = [&](int32_t rows, double ms) {
    points.push_back({512, false, StepKind::plain, 0, rows});
    ASSERT_TRUE(figures.add(points.back(), {true, ms, ms, ms, ms}));
  };
  add(64, 6.4);
  add(80, 8.16);  // 1.02 x
  add(96, 10.56);
  points.push_back({512, false, StepKind::plain, 0, 128});  // not measured
  const std::string text = table_of(figures, points);
  EXPECT_THAT(text, HasSubstr("512/fp16/plain, ms"));
  EXPECT_THAT(text, HasSubstr("64: 6.400 80: 8.160 96: 10.560 (1.10 x)\n"));
  EXPECT_THAT(text, Not(HasSubstr("128")));
}

TEST(DigestOf, TellsFilesApartAndSaysWhereThereIsNone) {
  const std::string own = digest_of("/proc/self/exe");
  EXPECT_EQ(own.size(), 16U);
  EXPECT_EQ(digest_of("/proc/self/exe"), own);
  EXPECT_NE(digest_of("/proc/self/status"), own);
  EXPECT_EQ(digest_of("/nonexistent"), "");
}

}  // namespace
}  // namespace lorikeet::bench
