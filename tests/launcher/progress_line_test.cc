#include "launcher/progress_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "launcher/server_progress.h"
#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;

TEST(ProgressText, ShowsABarCountsAndTheTimeLeft) {
  const Progress progress{"answering", 250, 1000, "requests", "812 tokens/s"};
  EXPECT_EQ(progress_text(progress, 80, 100),
            "answering  [######..................] 25 %, 250 of 1,000 requests, 812 tokens/s, 80.0 s left");
  EXPECT_EQ(progress_text(progress, 80, 79),
            "answering  [##.........] 25 %, 250 of 1,000 requests, 812 tokens/s, 80.0 s left")
      << "the bar gives way, the time does not";
  EXPECT_EQ(progress_text(progress, -1, 50), "answering  25 %, 250 of 1,000 requests, 812 tok...");
  EXPECT_EQ(progress_text({"answering", 7, 0, "requests", ""}, -1, 80), "answering  7 requests");
}

TEST(ProgressLine, SaysALineNowAndThenWhereThereIsNoTerminal) {
  tests::TempDir scratch;
  std::FILE* file = std::fopen((scratch / "out").c_str(), "wb");
  ProgressLine::Clock::time_point now{};
  {
    ProgressLine line(fileno(file), [&] { return now; });
    for (int i = 0; i <= 100; ++i, now += std::chrono::milliseconds(250)) {
      line.show({"measuring", i, 100, "tokens", ""});
    }
    line.say("a sentence");
  }
  std::fclose(file);
  EXPECT_EQ(tests::read_file(scratch / "out"),
            "measuring  [#########...............] 40 %, 40 of 100 tokens, 15.0 s left\n"
            "measuring  [###################.....] 80 %, 80 of 100 tokens, 5.00 s left\n"
            "a sentence\n");
}

TEST(LayerCount, AddsTheLayersOfAllRanks) {
  LayerCount count(2);
  EXPECT_EQ(count.add(0, 1, 4).done, 1);
  const Progress progress = count.add(1, 2, 4);
  EXPECT_EQ(progress.done, 3);
  EXPECT_EQ(progress.total, 8);
  EXPECT_FALSE(count.complete());
  count.add(0, 4, 4);
  count.add(1, 4, 4);
  EXPECT_TRUE(count.complete());
}

TEST(LayerCount, BeginsAnewWithTheRanksOfTheNextEpoch) {
  LayerCount count(2);
  count.add(0, 3, 4);
  count.add(1, 2, 4);
  EXPECT_EQ(count.add(1, 1, 4).done, 1);
  EXPECT_EQ(count.add(0, 2, 4).done, 3);
  EXPECT_EQ(count.add(7, 1, 4).done, 3) << "no such rank";
}

}  // namespace
}  // namespace lorikeet::launcher
