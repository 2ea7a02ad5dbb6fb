#include "actors/head/chunk_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "actors/wire/limits.h"

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr double kChunk = kAdapterChunkBytes;

// A connection that carries chunks one behind the other, and takes the same time for each answer.
class Link {
 public:
  Link(double bytes_per_second, nanoseconds round_trip)
      : bytes_per_second_(bytes_per_second), round_trip_(round_trip) {}

  void become(double bytes_per_second, nanoseconds round_trip) {
    bytes_per_second_ = bytes_per_second;
    round_trip_ = round_trip;
  }

  // As many chunks as are given, as soon as the window lets them.
  void carry(ChunkWindow& window, int chunks) {
    for (;;) {
      for (; chunks > 0 && window.has_room(kAdapterChunkBytes); --chunks) {
        free_ = std::max(free_, now_) + nanoseconds(static_cast<int64_t>(1e9 * kChunk / bytes_per_second_));
        under_way_.push_back({window.sent(kAdapterChunkBytes, now_), free_ + round_trip_});
        most_ = std::max(most_, window.in_flight());
      }
      if (under_way_.empty()) return;
      now_ = std::max(now_, under_way_.front().answer);
      window.answered(under_way_.front().sent, now_);
      under_way_.pop_front();
    }
  }

  void rest(nanoseconds time) { now_ += time; }
  size_t most_in_flight() const { return most_; }

 private:
  struct UnderWay {
    ChunkWindow::Sent sent;
    ChunkWindow::TimePoint answer;
  };

  double bytes_per_second_;
  nanoseconds round_trip_;
  ChunkWindow::TimePoint now_{std::chrono::hours(1)}, free_;
  std::deque<UnderWay> under_way_;
  size_t most_ = 0;
};

// Twice what is carried between a lone chunk and its answer.
double wanted(double bytes_per_second, double round_trip) {
  return 2 * (bytes_per_second * round_trip + kChunk);
}

TEST(ChunkWindow, FollowsBandwidthTimesDelay) {
  for (const auto& [bytes_per_second, ms] :
       {std::pair(125e6, 20), std::pair(125e6, 5), std::pair(1.25e9, 3), std::pair(12.5e6, 80)}) {
    ChunkWindow window;
    Link(bytes_per_second, milliseconds(ms)).carry(window, 300);
    const double goal = wanted(bytes_per_second, ms * 1e-3);
    EXPECT_NEAR(static_cast<double>(window.bytes()), goal, 0.02 * goal) << bytes_per_second << " " << ms;
    EXPECT_EQ(window.in_flight(), 0u);
  }
}

TEST(ChunkWindow, StaysWithinItsBounds) {
  ChunkWindow slow, fast;
  Link(1e5, milliseconds(0)).carry(slow, 50);
  EXPECT_EQ(slow.bytes(), ChunkWindow::kLeast);
  Link far(10e9, milliseconds(200));
  far.carry(fast, 1000);
  EXPECT_EQ(fast.bytes(), ChunkWindow::kMost);
  EXPECT_LE(far.most_in_flight(), ChunkWindow::kMost);
  EXPECT_GT(far.most_in_flight(), ChunkWindow::kMost - kAdapterChunkBytes);
}

TEST(ChunkWindow, ShrinksOnceTheConnectionIsSlower) {
  ChunkWindow window;
  Link link(125e6, milliseconds(20));
  link.carry(window, 300);
  link.become(20e6, milliseconds(20));
  link.carry(window, 300);
  EXPECT_LT(static_cast<double>(window.bytes()), 1.1 * wanted(20e6, 20e-3));
}

TEST(ChunkWindow, LearnsALongerWayOnceItWasIdle) {
  ChunkWindow window;
  Link link(125e6, milliseconds(5));
  link.carry(window, 300);
  link.rest(std::chrono::seconds(1));
  link.become(125e6, milliseconds(40));
  link.carry(window, 300);
  EXPECT_NEAR(static_cast<double>(window.bytes()), wanted(125e6, 40e-3), 0.02 * wanted(125e6, 40e-3));
}

TEST(ChunkWindow, IsNotTaughtByChunksThatCameAlone) {
  ChunkWindow window;
  Link link(125e6, milliseconds(20));
  link.carry(window, 300);
  const size_t before = window.bytes();
  for (int i = 0; i < 100; ++i) {
    link.rest(std::chrono::seconds(1));
    link.carry(window, 1);
  }
  EXPECT_EQ(window.bytes(), before);
}

TEST(ChunkWindow, LetsOneChunkThroughWhateverItsSize) {
  ChunkWindow window;
  EXPECT_TRUE(window.has_room(ChunkWindow::kMost + 1));
  const auto sent = window.sent(ChunkWindow::kMost + 1, {});
  EXPECT_FALSE(window.has_room(1));
  window.forget(sent);
  EXPECT_EQ(window.in_flight(), 0u);
  EXPECT_TRUE(window.has_room(1));
}

TEST(ChunkWindow, IsNotTaughtByAClockThatStandsStill) {
  ChunkWindow window;
  for (int i = 0; i < 100; ++i) window.answered(window.sent(kAdapterChunkBytes, {}), {});
  EXPECT_EQ(window.bytes(), ChunkWindow::kFirst);
}

}  // namespace
}  // namespace lorikeet::actors
