#include "actors/supervisor/restart_pacer.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using Duration = RestartPacer::Duration;

TEST(RestartPacer, StartsAtOnceAfterAFewLossesAndThenMoreAndMoreSeldom) {
  RestartPacer pacer;
  for (int i = 0; i < static_cast<int>(RestartPacer::kBurst); ++i)
    EXPECT_EQ(pacer.lost_after(Duration(0)), Duration(0));
  Duration expected = RestartPacer::kFirstDelay;
  for (int i = 0; i < 7; ++i, expected *= 2) EXPECT_EQ(pacer.lost_after(Duration(0)), expected);
  for (int i = 0; i < 100; ++i) pacer.lost_after(Duration(10));
  EXPECT_EQ(pacer.lost_after(Duration(10)), RestartPacer::kMostDelay) << "to serve for a moment earns nothing";
}

TEST(RestartPacer, ForgetsLossesOfWhatServesForAWhile) {
  RestartPacer pacer;
  for (int i = 0; i < 20; ++i) pacer.lost_after(Duration(0));
  EXPECT_EQ(pacer.lost_after(RestartPacer::kServedForOne), Duration(0));
  EXPECT_EQ(pacer.lost_after(Duration(0)), RestartPacer::kFirstDelay);
  EXPECT_EQ(pacer.lost_after(Duration(3'600'000)), Duration(0));
  for (int i = 1; i < static_cast<int>(RestartPacer::kBurst); ++i)
    EXPECT_EQ(pacer.lost_after(Duration(0)), Duration(0));
  EXPECT_GT(pacer.lost_after(Duration(0)), Duration(0)) << "an hour earns no more than the burst";
}

}  // namespace
}  // namespace lorikeet::actors
