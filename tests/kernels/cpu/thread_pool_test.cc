#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

namespace lorikeet::kernels {
namespace {

TEST(ThreadPool, CoversEveryIndexOnceWhateverTheSizes) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads, threads == 3 ? ThreadPool::kSpin : std::chrono::microseconds(0));
    for (int64_t count : {0, 1, 2, 7, 8, 9, 64, 1001}) {
      for (int64_t grain : {1, 8, 64}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& visit : visits) ASSERT_EQ(visit, 1);
      }
    }
  }
}

TEST(ThreadPool, CutsOnlyAtMultiplesOfTheGrain) {
  ThreadPool pool(3);
  std::atomic<int> misplaced{0};
  pool.parallel_for(100, 8,
                    [&](int64_t begin, int64_t end) { misplaced += begin % 8 != 0 || (end % 8 != 0 && end != 100); });
  EXPECT_EQ(misplaced, 0);
}

// Whoever is late leaves the rest to the others: no thread has a part that is its share of the whole loop.
TEST(ThreadPool, SharesOutPartsThatGetSmaller) {
  ThreadPool pool(2);
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> parts;
  pool.parallel_for(1000, 1, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    parts.emplace_back(begin, end - begin);
  });
  std::ranges::sort(parts);
  EXPECT_EQ(parts.front(), (std::pair<int64_t, int64_t>(0, 250)));
  for (size_t i = 1; i < parts.size(); ++i) EXPECT_LE(parts[i].second, parts[i - 1].second);
  EXPECT_EQ(parts[parts.size() - 2].second,
            31);  // a sixteenth of a thread's share: smaller ones cost more than they save
}

TEST(ThreadPool, TakesMoreThreadsAndFewerBetweenLoops) {
  ThreadPool pool(3);
  for (const int threads : {3, 5, 1, 2, 0, 4}) {
    pool.resize(threads, threads % 2 == 0 ? ThreadPool::kSpin : std::chrono::microseconds{});
    EXPECT_EQ(pool.size(), std::max(threads, 1));
    std::vector<int> seen(1000);
    for (int loop = 0; loop < 3; ++loop) {
      pool.parallel_for(1000, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
    }
    EXPECT_EQ(seen, std::vector<int>(1000, 3));
  }
}

TEST(ThreadPool, RunsLoopsOneAfterTheOther) {
  for (const auto spin : {std::chrono::microseconds(0), ThreadPool::kSpin}) {
    ThreadPool pool(4, spin);
    int64_t total = 0;
    for (int round = 0; round < 500; ++round) {
      std::atomic<int64_t> sum{0};
      pool.parallel_for(16, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sum += i;
      });
      total += sum;
    }
    EXPECT_EQ(total, 500 * 120);
  }
}

// Loops so short that workers wake when they are over, and join the next one or none.
TEST(ThreadPool, LosesNothingToThreadsThatComeLate) {
  for (const auto spin : {std::chrono::microseconds(0), ThreadPool::kSpin}) {
    ThreadPool pool(4, spin);
    std::vector<int> seen(64);  // an index is one thread's: no two writes of a loop, or of two loops, may meet
    std::vector<int> expected(64);
    for (int loop = 0; loop < 10'000; ++loop) {
      const int64_t count = 1 + loop % 64;
      pool.parallel_for(count, 1, [&seen](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (int64_t i = 0; i < count; ++i) ++expected[static_cast<size_t>(i)];
    }
    EXPECT_EQ(seen, expected);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
