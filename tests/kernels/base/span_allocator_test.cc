#include "kernels/base/span_allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace lorikeet::kernels {
namespace {

TEST(SpanAllocator, TakesTheShortestRangeThatSuffices) {
  SpanAllocator allocator(1024, 128);
  const ByteSpan a = *allocator.allocate(384);
  const ByteSpan b = *allocator.allocate(128);
  const ByteSpan c = *allocator.allocate(150);  // rounded to 256
  const ByteSpan d = *allocator.allocate(256);
  EXPECT_EQ(allocator.used(), 1024U);
  EXPECT_FALSE(allocator.allocate(1));
  allocator.free(a);
  allocator.free(c);
  EXPECT_EQ(allocator.allocate(256)->offset, c.offset);
  EXPECT_EQ(allocator.longest_free(), 384U);
  allocator.free(b);
  EXPECT_EQ(allocator.longest_free(), 512U);
  allocator.free(d);
  EXPECT_EQ(allocator.used(), 256U);
}

TEST(SpanAllocator, RefusesWhatItCannotHold) {
  SpanAllocator nothing(127, 128);
  EXPECT_EQ(nothing.capacity(), 0U);
  EXPECT_FALSE(nothing.allocate(1));
  SpanAllocator allocator(1 << 20, 512);
  EXPECT_FALSE(allocator.allocate(~uint64_t{0}));
  EXPECT_FALSE(allocator.allocate((1 << 20) + 1));
  EXPECT_TRUE(allocator.allocate(1 << 20));
}

TEST(SpanAllocator, TakesASpanThatIsWhollyFreeAndNoOther) {
  SpanAllocator allocator(1024, 128);
  EXPECT_TRUE(allocator.take({256, 128}));
  EXPECT_EQ(allocator.used(), 128U);
  for (const ByteSpan& span : std::vector<ByteSpan>{{256, 128},
                                                    {128, 256},
                                                    {256, 256},
                                                    {0, 1024},
                                                    {1024, 128},
                                                    {896, 256},
                                                    {64, 128},
                                                    {0, 64},
                                                    {0, 0},
                                                    {512, ~uint64_t{0} - 127},
                                                    {~uint64_t{0} - 127, 128}}) {
    EXPECT_FALSE(allocator.take(span)) << span.offset << " " << span.bytes;
  }
  EXPECT_TRUE(allocator.take({0, 256}));
  EXPECT_TRUE(allocator.take({768, 256}));
  EXPECT_TRUE(allocator.take({384, 384}));
  EXPECT_EQ(allocator.used(), 1024U);
  EXPECT_FALSE(allocator.allocate(1));
  allocator.free({256, 128});
  EXPECT_EQ(allocator.allocate(128)->offset, 256U);
}

TEST(SpanAllocator, TakenAgainIsAsItWasAllocated) {
  std::mt19937 random(7);
  SpanAllocator first(1 << 16, 256), second(1 << 16, 256);
  std::vector<ByteSpan> spans;
  while (const auto span = first.allocate(random() % 3000 + 1)) spans.push_back(*span);
  for (size_t i = 0; i < spans.size(); i += 2) first.free(spans[i]);
  for (size_t i = spans.size() - spans.size() % 2; i > 1; i -= 2) EXPECT_TRUE(second.take(spans[i - 1]));
  EXPECT_EQ(second.used(), first.used());
  EXPECT_EQ(second.longest_free(), first.longest_free());
  for (int i = 0; i < 20; i++) {
    const auto a = first.allocate(700), b = second.allocate(700);
    ASSERT_EQ(a.has_value(), b.has_value());
    if (a) EXPECT_EQ(a->offset, b->offset);
  }
}

TEST(SpanAllocator, NeverGivesAByteTwiceAndGetsEverythingBack) {
  std::mt19937 random(5);
  SpanAllocator allocator(1 << 16, 256);
  std::map<uint64_t, ByteSpan> taken;
  for (int step = 0; step < 20000; step++) {
    if (random() % 2 == 0) {
      const uint64_t bytes = random() % 9000 + 1;
      const std::optional<ByteSpan> span = allocator.allocate(bytes);
      if (!span) {
        EXPECT_LT(allocator.longest_free(), bytes);
        continue;
      }
      ASSERT_GE(span->bytes, bytes);
      ASSERT_EQ(span->offset % 256, 0U);
      ASSERT_LE(span->offset + span->bytes, allocator.capacity());
      const auto next = taken.lower_bound(span->offset);
      ASSERT_TRUE(next == taken.end() || span->offset + span->bytes <= next->first);
      ASSERT_TRUE(next == taken.begin() ||
                  std::prev(next)->second.offset + std::prev(next)->second.bytes <= span->offset);
      taken[span->offset] = *span;
    } else if (!taken.empty()) {
      const auto chosen = std::next(taken.begin(), static_cast<ptrdiff_t>(random() % taken.size()));
      allocator.free(chosen->second);
      taken.erase(chosen);
    }
  }
  for (const auto& [offset, span] : taken) allocator.free(span);
  EXPECT_EQ(allocator.used(), 0U);
  EXPECT_EQ(allocator.longest_free(), allocator.capacity());
}

// A slot is a span for each of 48 layers; an adapter of q and v takes less than a fifth of one of all projections.
TEST(SpanAllocator, HoldsAdaptersOfTwoSizesInAnyOrderWithASixteenthMoreThanTheLargerOnesTake) {
  constexpr int kLayers = 48;
  const uint64_t sizes[] = {2'883'584, 524'288};
  const auto loads_before_a_refusal = [&](uint64_t capacity, size_t slots, unsigned seed) {
    SpanAllocator allocator(capacity, 256);
    std::vector<std::vector<ByteSpan>> held(slots);
    std::mt19937 random(seed);
    for (int load = 0; load < 1000; ++load) {
      std::vector<ByteSpan>& slot = held[random() % slots];
      for (const ByteSpan& span : slot) allocator.free(span);
      slot.clear();
      const uint64_t bytes = sizes[random() % 2];
      for (int layer = 0; layer < kLayers; ++layer) {
        const auto span = allocator.allocate(bytes);
        if (!span) return load;
        slot.push_back(*span);
      }
    }
    return 1000;
  };
  for (const size_t slots : {2, 4, 8, 32}) {
    const uint64_t larger = slots * kLayers * sizes[0];
    for (unsigned seed = 0; seed < 5; ++seed) {
      EXPECT_EQ(loads_before_a_refusal(larger + larger / 16, slots, seed), 1000) << slots;
      if (slots <= 8) EXPECT_LT(loads_before_a_refusal(larger, slots, seed), 1000) << slots;
    }
  }
}

TEST(SpanAllocatorDeathTest, NoticesASpanThatIsGivenBackTwice) {
  SpanAllocator allocator(1024, 128);
  const ByteSpan span = *allocator.allocate(200);
  allocator.free(span);
  EXPECT_DEATH(allocator.free(span), "given back twice");
}

}  // namespace
}  // namespace lorikeet::kernels
