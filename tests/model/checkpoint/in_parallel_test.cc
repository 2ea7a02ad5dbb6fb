#include "model/checkpoint/in_parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <vector>

namespace lorikeet::model {
namespace {

TEST(InParallel, DoesEverythingOnceByHoweverManyThreads) {
  for (const int threads : {0, 1, 3, 100}) {
    std::vector<std::atomic<int>> done(20);
    in_parallel(done.size(), threads, [&](size_t i) { ++done[i]; });
    for (const auto& times : done) EXPECT_EQ(times, 1) << threads << " threads";
  }
}

TEST(InParallel, ThrowsWhatWorkThrowsOnceAllThreadsHaveReturned) {
  for (const int threads : {1, 4}) {
    std::atomic<int> running{0};
    const auto work = [&](size_t i) {
      ++running;
      if (i == 2) {
        --running;
        throw std::bad_alloc();
      }
      --running;
    };
    EXPECT_THROW(in_parallel(100, threads, work), std::bad_alloc) << threads << " threads";
    EXPECT_EQ(running, 0);
  }
}

TEST(InParallel, BeginsNothingMoreAfterAFailure) {
  int begun = 0;
  EXPECT_THROW(in_parallel(100, 1,
                           [&](size_t) {
                             ++begun;
                             throw std::runtime_error("the first");
                           }),
               std::runtime_error);
  EXPECT_EQ(begun, 1);
}

}  // namespace
}  // namespace lorikeet::model
