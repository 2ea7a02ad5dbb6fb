#include "kernels/peer/two_shot_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

namespace lorikeet::kernels {
namespace {

constexpr int32_t kChunkBytes = 256;

std::vector<TwoShotPlan> plans() {
  std::vector<TwoShotPlan> all;
  for (int32_t ranks = 2; ranks <= 8; ++ranks) {
    for (const int32_t chunks : {8, 9, 15, 16, 40, 64}) {
      for (const int32_t rows : {1, 2, 7}) all.push_back({ranks, rows, chunks, kChunkBytes});
    }
  }
  return all;
}

TEST(TwoShotPlan, GivesEveryChunkOneOwnerAndEveryRankAnEqualShare) {
  for (const TwoShotPlan& plan : plans()) {
    std::vector<int32_t> owned(static_cast<size_t>(plan.ranks), 0);
    for (int32_t chunk = 0; chunk < plan.chunks; ++chunk) ++owned.at(static_cast<size_t>(plan.owner(chunk)));
    for (const int32_t count : owned) {
      EXPECT_GE(count, plan.chunks / plan.ranks) << plan.ranks << " ranks, " << plan.chunks << " chunks";
      EXPECT_LE(count, plan.owned_per_row());
    }
  }
}

// An inbox's owner finds parts of its own chunks in a sender's place, and sums of the sender's.
TEST(TwoShotPlan, LaysNoTwoWordsOfASenderOnOnePlace) {
  for (const TwoShotPlan& plan : plans()) {
    for (int32_t owner = 0; owner < plan.ranks; ++owner) {
      for (int32_t sender = 0; sender < plan.ranks; ++sender) {
        if (sender == owner) continue;
        std::map<uint64_t, uint64_t> taken;  // by where they begin
        for (int32_t row = 0; row < plan.rows; ++row) {
          for (int32_t chunk = 0; chunk < plan.chunks; ++chunk) {
            if (plan.owner(chunk) == owner) taken.emplace(plan.offset(row, chunk), kChunkBytes);
            if (plan.owner(chunk) == sender) taken.emplace(plan.first_sum() + plan.offset(row, chunk), kChunkBytes);
          }
        }
        uint64_t end = 0;
        uint64_t bytes = 0;
        for (const auto& [begin, size] : taken) {
          EXPECT_GE(begin, end);
          end = begin + size;
          bytes += size;
        }
        EXPECT_LE(end, plan.place_bytes());
        int32_t words = 0;
        for (int32_t chunk = 0; chunk < plan.chunks; ++chunk) {
          words += (plan.owner(chunk) == owner) + (plan.owner(chunk) == sender);
        }
        EXPECT_EQ(bytes, static_cast<uint64_t>(words) * static_cast<uint64_t>(plan.rows) * kChunkBytes);
      }
    }
  }
}

TEST(TwoShotPlan, SendsTwoNthsOfTheBytesToEachRank) {
  const TwoShotPlan plan{4, 64, 40, kChunkBytes};  // 64 rows of 5,120
  EXPECT_EQ(plan.place_bytes(), uint64_t{64} * 40 * kChunkBytes * 2 / 4);
}

TEST(TwoShotPlan, KnowsWhereARankHasNothing) {
  EXPECT_TRUE((TwoShotPlan{4, 1, 4, kChunkBytes}.all_own()));
  EXPECT_FALSE((TwoShotPlan{4, 100, 3, kChunkBytes}.all_own()));
}

}  // namespace
}  // namespace lorikeet::kernels
