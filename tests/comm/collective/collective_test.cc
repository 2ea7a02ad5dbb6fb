// One suite over every implementation of comm/collective/collective.h that runs on a CPU.
#include "comm/collective/collective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <tuple>
#include <vector>

#include "comm/collective/group.h"
#include "tests/comm/collective/ranks.h"

namespace lorikeet::comm {
namespace {

using ::testing::Each;

// Values over several orders of magnitude, so that the order of the additions shows in the bits of a sum.
std::vector<float> values_of(int rank, size_t count, uint32_t round = 0) {
  std::mt19937 random(1 + rank + 1000 * round);
  std::vector<float> values(count);
  for (float& value : values) {
    const float mantissa = std::uniform_real_distribution<float>(-1, 1)(random);
    value = std::ldexp(mantissa, static_cast<int>(random() % 24) - 12);
  }
  return values;
}

std::vector<float> sum_in_rank_order(int size, size_t count, uint32_t round = 0) {
  std::vector<float> sum = values_of(0, count, round);
  for (int rank = 1; rank < size; ++rank) {
    const std::vector<float> term = values_of(rank, count, round);
    for (size_t i = 0; i < count; ++i) sum[i] = sum[i] + term[i];
  }
  return sum;
}

// "" when both hold the same bits.
std::string difference(const std::vector<float>& got, const std::vector<float>& expected, const char* what) {
  if (got.size() == expected.size() &&
      (got.empty() || std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0)) {
    return "";
  }
  return fmt::format("{} of {} values differs", what, expected.size());
}

// Around the limits of vectors, blocks and of the switch between the algorithms; primes leave uneven chunks.
constexpr size_t kCounts[] = {0, 1, 2, 3, 5, 7, 1023, 1024, 1025, 16381, 16384, 16385, 100'003, 1'000'003};

class CollectiveTest : public ::testing::TestWithParam<std::tuple<RankKind, int>> {
 protected:
  static RankKind kind() { return std::get<0>(GetParam()); }
  static int size() { return std::get<1>(GetParam()); }
  static std::vector<std::string> run(const RankBody& body) { return run_ranks(kind(), size(), body); }
};

TEST_P(CollectiveTest, EachEndKnowsItsRankAndTheSize) {
  const int expected = size();
  EXPECT_THAT(run([expected](Collective& collective) -> std::string {
                if (collective.size() != expected) return "size";
                // The ranks are distinct when their sum and their maximum are right.
                std::vector<float> ranks(expected, 0);
                ranks[collective.rank()] = 1;
                collective.all_reduce(ranks.data(), ranks.size());
                return difference(ranks, std::vector<float>(expected, 1), "rank");
              }),
              Each(""));
}

TEST_P(CollectiveTest, AllReduceAddsInRankOrderWithTheSameBitsOnEveryRank) {
  EXPECT_THAT(run([](Collective& collective) -> std::string {
                for (size_t count : kCounts) {
                  std::vector<float> data = values_of(collective.rank(), count);
                  collective.all_reduce(data.data(), count);
                  const auto wrong = difference(data, sum_in_rank_order(collective.size(), count), "sum");
                  if (!wrong.empty()) return wrong;
                }
                return "";
              }),
              Each(""));
}

TEST_P(CollectiveTest, AllGatherOrdersByRank) {
  EXPECT_THAT(run([](Collective& collective) -> std::string {
                for (size_t count : kCounts) {
                  const std::vector<float> own = values_of(collective.rank(), count);
                  std::vector<float> all(count * collective.size()), expected;
                  collective.all_gather(own.data(), all.data(), count * sizeof(float));
                  for (int rank = 0; rank < collective.size(); ++rank) {
                    const std::vector<float> part = values_of(rank, count);
                    expected.insert(expected.end(), part.begin(), part.end());
                  }
                  const auto wrong = difference(all, expected, "gathered");
                  if (!wrong.empty()) return wrong;
                }
                return "";
              }),
              Each(""));
}

TEST_P(CollectiveTest, AllGatherMayTakeItsPartFromTheTarget) {
  EXPECT_THAT(run([](Collective& collective) -> std::string {
                for (size_t bytes : {0, 1, 3, 4097, 300'007}) {
                  std::vector<uint8_t> all(bytes * collective.size(), 0xEE);
                  uint8_t* own = all.data() + bytes * collective.rank();
                  std::fill_n(own, bytes, static_cast<uint8_t>(collective.rank()));
                  collective.all_gather(own, all.data(), bytes);
                  for (size_t i = 0; i < all.size(); ++i) {
                    if (all[i] != i / bytes) return fmt::format("byte {} of {}", i, all.size());
                  }
                }
                return "";
              }),
              Each(""));
}

TEST_P(CollectiveTest, BroadcastReachesAllFromEveryRoot) {
  EXPECT_THAT(run([](Collective& collective) -> std::string {
                for (int root = 0; root < collective.size(); ++root) {
                  for (size_t count : kCounts) {
                    std::vector<float> data = values_of(collective.rank(), count);
                    collective.broadcast(data.data(), count * sizeof(float), root);
                    const auto wrong = difference(data, values_of(root, count), "broadcast");
                    if (!wrong.empty()) return wrong;
                  }
                }
                return "";
              }),
              Each(""));
}

TEST_P(CollectiveTest, NobodyPassesABarrierBeforeAllHaveReachedIt) {
  // Before each barrier a rank tells the others its round through an all_gather that it starts late; after it, every
  // rank must have seen every other's round.
  EXPECT_THAT(run([](Collective& collective) -> std::string {
                std::vector<int> rounds(collective.size());
                for (int round = 0; round < 20; ++round) {
                  if (round % collective.size() == collective.rank()) std::this_thread::yield();
                  rounds[collective.rank()] = round;
                  collective.all_gather(&rounds[collective.rank()], rounds.data(), sizeof(int));
                  collective.barrier();
                  for (int other : rounds) {
                    if (other != round) return fmt::format("round {} met {}", round, other);
                  }
                }
                return "";
              }),
              Each(""));
}

TEST_P(CollectiveTest, ManyDifferentOperationsFollowEachOther) {
  EXPECT_THAT(run([](Collective& collective) -> std::string {
                std::mt19937 random(7);  // the same on all ranks
                for (uint32_t round = 0; round < 150; ++round) {
                  const size_t count = random() % (round % 10 == 0 ? 60'000 : 600);
                  std::vector<float> data = values_of(collective.rank(), count, round);
                  std::string wrong;
                  switch (random() % 4) {
                    case 0:
                      collective.all_reduce(data.data(), count);
                      wrong = difference(data, sum_in_rank_order(collective.size(), count, round), "sum");
                      break;
                    case 1: {
                      const int root = static_cast<int>(random() % collective.size());
                      collective.broadcast(data.data(), count * sizeof(float), root);
                      wrong = difference(data, values_of(root, count, round), "broadcast");
                      break;
                    }
                    case 2: {
                      std::vector<float> all(count * collective.size());
                      collective.all_gather(data.data(), all.data(), count * sizeof(float));
                      const size_t last = collective.size() - 1;
                      wrong = difference({all.begin() + last * count, all.end()},
                                         values_of(static_cast<int>(last), count, round), "gathered");
                      break;
                    }
                    default:
                      collective.barrier();
                  }
                  if (!wrong.empty()) return fmt::format("round {}: {}", round, wrong);
                }
                return "";
              }),
              Each(""));
}

TEST_P(CollectiveTest, ARankMayLeaveRightAfterItsLastOperation) {
  // What it sent last is more than the network holds, and closing a connection throws away what has not been read.
  for (int round = 0; round < 3; ++round) {
    EXPECT_THAT(run([round](Collective& collective) -> std::string {
                  const int root = round % collective.size();
                  const size_t count = round == 0 ? 5'000'000 : 50;
                  std::vector<float> data(count, collective.rank() == root ? 1.F : 0.F);
                  collective.broadcast(data.data(), count * sizeof(float), root);
                  return difference(data, std::vector<float>(count, 1.F), "broadcast");
                }),
                Each(""));
  }
}

std::string name_of_parameters(const ::testing::TestParamInfo<CollectiveTest::ParamType>& info) {
  return name_of(std::get<0>(info.param)) + "Of" + std::to_string(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, CollectiveTest,
                         ::testing::Combine(::testing::Values(RankKind::local_threads, RankKind::gloo_threads,
                                                              RankKind::gloo_processes),
                                            ::testing::Values(1, 2, 3, 4)),
                         name_of_parameters);

}  // namespace
}  // namespace lorikeet::comm
