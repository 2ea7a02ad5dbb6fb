#include "actors/head/staging_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace lorikeet::actors {
namespace {

constexpr uint64_t kPage = 64 << 10;  // of any system

TEST(StagingMemory, IsZerosWhereNobodyWroteAndIsReadAsItWasWrittenOnceSealed) {
  for (const int threads : {1, 3}) {
    auto memory = StagingMemory::make(3 * kPage);
    ASSERT_TRUE(memory);
    ASSERT_TRUE(memory->populate(kPage - 1, 2));
    ASSERT_TRUE(memory->populate_all(threads));
    memory->data()[kPage] = 7;
    const auto sealed = (*std::move(memory)).seal(threads);
    ASSERT_TRUE(sealed) << sealed.error().message;
    std::vector<uint8_t> expected(3 * kPage, 0);
    expected[kPage] = 7;
    const auto bytes = sealed->bytes();
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end()));
    EXPECT_EQ(kernels::sealed_size(sealed->descriptor()).value(), 3 * kPage);
  }
}

TEST(StagingMemory, IsPopulatedWhereItIsWrittenToWhenAllOfItWasNotWaitedFor) {
  auto memory = StagingMemory::make(3 * kPage);
  ASSERT_TRUE(memory);
  const std::atomic<bool> stops{true};
  ASSERT_TRUE(memory->populate_all(2, &stops));
  ASSERT_TRUE(memory->populate(2 * kPage, 1));
  memory->data()[2 * kPage] = 5;
  const auto sealed = (*std::move(memory)).seal(2);
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_EQ(sealed->bytes()[2 * kPage], 5);
}

// Parts of several sizes from several threads, some twice, in no order: what leaves the mapping may be written to again.
TEST(StagingMemory, KeepsWhatWasWrittenThoughItHasLeftTheMapping) {
  constexpr uint64_t kBytes = (5 << 20) + kPage;
  constexpr uint64_t kPart = 12'345;
  const auto value = [](uint64_t at) { return static_cast<uint8_t>(at * 31 % 251); };
  auto memory = StagingMemory::make(kBytes);
  ASSERT_TRUE(memory);
  const auto write = [&](uint64_t first) {
    for (uint64_t begin = first * kPart; begin < kBytes; begin += 3 * kPart) {
      const uint64_t end = std::min(kBytes, begin + kPart);
      ASSERT_TRUE(memory->populate(begin, end - begin));
      for (uint64_t at = begin; at < end; ++at) memory->data()[at] = value(at);
      memory->written(begin, end - begin);
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t first = 0; first < 3; ++first) threads.emplace_back(write, first);
  for (std::thread& thread : threads) thread.join();
  write(1);
  const auto sealed = (*std::move(memory)).seal(2);
  ASSERT_TRUE(sealed) << sealed.error().message;
  const auto bytes = sealed->bytes();
  for (uint64_t at = 0; at < kBytes; ++at) ASSERT_EQ(bytes[at], value(at)) << at;
}

TEST(SpareStagingMemory, IsTakenOnceAndAsLargeAsWasAskedFor) {
  SpareStagingMemory spare(4 * kPage);
  EXPECT_FALSE(spare.take(kPage)) << "nothing has been made ready";
  spare.prepare(3 * kPage, 2);
  EXPECT_EQ(spare.bytes(), 3 * kPage);
  auto taken = spare.take(2 * kPage);
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->bytes(), 2 * kPage);
  EXPECT_EQ(spare.bytes(), 0u);
  EXPECT_FALSE(spare.take(kPage));
  taken->data()[2 * kPage - 1] = 9;
  const auto sealed = (*std::move(taken)).seal(1);
  ASSERT_TRUE(sealed) << sealed.error().message;
  EXPECT_EQ(kernels::sealed_size(sealed->descriptor()).value(), 2 * kPage);
  EXPECT_EQ(sealed->bytes().back(), 9);
}

TEST(SpareStagingMemory, GoesWhereMoreIsNeededAndIsNotMadeTwice) {
  SpareStagingMemory spare(4 * kPage);
  spare.prepare(2 * kPage, 1);
  spare.prepare(kPage, 1);
  EXPECT_EQ(spare.bytes(), 2 * kPage) << "the larger one serves";
  EXPECT_FALSE(spare.take(3 * kPage));
  EXPECT_EQ(spare.bytes(), 0u);
  spare.prepare(kPage, 1);
  spare.prepare(3 * kPage, 1);
  EXPECT_EQ(spare.bytes(), 3 * kPage);
}

TEST(SpareStagingMemory, StaysWithinItsBound) {
  SpareStagingMemory spare(2 * kPage);
  spare.prepare(2 * kPage + 1, 1);
  EXPECT_EQ(spare.bytes(), 0u);
  spare.prepare(0, 1);
  EXPECT_EQ(spare.bytes(), 0u);
  spare.prepare(2 * kPage, 1);
  EXPECT_EQ(spare.bytes(), 2 * kPage);
}

}  // namespace
}  // namespace lorikeet::actors
