#include "actors/head/adapter_transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "tests/actors/envelopes.h"

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

const AdapterTransfer::TimePoint kNow{};

std::shared_ptr<StagedAdapter> adapter_of(size_t slice0, size_t slice1) {
  auto made = std::make_shared<StagedAdapter>();
  made->digest = "d1";
  made->slices = {std::vector<uint8_t>(slice0, 1), std::vector<uint8_t>(slice1, 2)};
  return made;
}

size_t chunks_for(const std::vector<Envelope>& envelopes, int32_t rank) {
  size_t count = 0;
  for (const Envelope& e : envelopes) {
    const auto order = message_in<AdapterOrder>(e);
    count += std::holds_alternative<AdapterChunk>(order.what) && e.rank == rank ? 1 : 0;
  }
  return count;
}

TEST(AdapterTransfer, SendsNoMoreChunksThanTheWindowHasRoomFor) {
  constexpr size_t kFit = ChunkWindow::kFirst / kAdapterChunkBytes, kChunks = kFit + 3;
  ChunkWindows windows;
  AdapterTransfer transfer(3, 2, 1, adapter_of(kChunks * kAdapterChunkBytes, 10), windows, kNow);
  auto envelopes = transfer.start(kNow);
  EXPECT_EQ(chunks_for(envelopes, 0), kFit);
  EXPECT_EQ(chunks_for(envelopes, 1), 1u);
  size_t bytes = 0;
  for (const Envelope& e : envelopes) {
    const auto order = message_in<AdapterOrder>(e);
    EXPECT_EQ(order.transfer, 3u);
    EXPECT_EQ(e.epoch, 2u);
    EXPECT_LE(e.bytes.size(), kEnvelopeBytes);
    if (const auto* begin = std::get_if<AdapterBegin>(&order.what)) {
      EXPECT_EQ(begin->slot, 1);
      EXPECT_EQ(begin->digest, "d1");
    } else if (e.rank == 0) {
      bytes += std::get<AdapterChunk>(order.what).bytes.size();
    }
  }
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(transfer.more_chunks(0, kNow).empty());
    transfer.chunk_taken(0, kNow);
    envelopes = transfer.more_chunks(0, kNow);
    ASSERT_EQ(chunks_for(envelopes, 0), 1u);
    bytes += order_in<AdapterChunk>(envelopes[0]).bytes.size();
    EXPECT_EQ(bytes == kChunks * kAdapterChunkBytes, i == 2);
  }
  EXPECT_EQ(bytes, kChunks * kAdapterChunkBytes);
  transfer.chunk_taken(0, kNow);
  EXPECT_TRUE(transfer.more_chunks(0, kNow).empty());
}

TEST(AdapterTransfer, SharesTheWindowOfARankWithOthers) {
  constexpr size_t kFit = ChunkWindow::kFirst / kAdapterChunkBytes;
  ChunkWindows windows;
  auto first =
      std::make_unique<AdapterTransfer>(1, 2, 1, adapter_of((kFit + 1) * kAdapterChunkBytes, 10), windows, kNow);
  AdapterTransfer second(2, 2, 0, adapter_of(5 * kAdapterChunkBytes, 10), windows, kNow);
  EXPECT_EQ(chunks_for(first->start(kNow), 0), kFit);
  const auto begun = second.start(kNow);
  EXPECT_EQ(chunks_for(begun, 0), 0u);
  EXPECT_EQ(chunks_for(begun, 1), 1u) << "the other rank has a window of its own";
  first->chunk_taken(0, kNow);
  EXPECT_EQ(chunks_for(second.more_chunks(0, kNow), 0), 1u);
  EXPECT_TRUE(first->more_chunks(0, kNow).empty());
  first.reset();
  EXPECT_EQ(chunks_for(second.more_chunks(0, kNow), 0), kFit - 1) << "what the first had on its way counts no more";
}

TEST(AdapterTransfer, BelievesNoAnswerToChunksThatWereNotSent) {
  ChunkWindows windows;
  AdapterTransfer transfer(3, 2, 1, adapter_of(10, 10), windows, kNow);
  transfer.start(kNow);
  const auto later = kNow + std::chrono::seconds(1);
  transfer.chunk_taken(0, later);
  const size_t window = windows[0].bytes();
  for (int i = 0; i < 100; ++i) transfer.chunk_taken(0, later + std::chrono::seconds(i));
  EXPECT_EQ(transfer.last_progress(), later);
  EXPECT_EQ(windows[0].bytes(), window);
  EXPECT_EQ(windows[0].in_flight(), 0u);
}

// Of two slices in memory that can be handed over.
std::shared_ptr<StagedAdapter> in_region() {
  auto made = std::make_shared<StagedAdapter>();
  made->digest = "d1";
  auto memory = kernels::ResidentMemory::make("test").value();
  EXPECT_TRUE(memory.write(0, std::vector<uint8_t>(4096 + 10, 1)));
  EXPECT_TRUE(memory.seal());
  made->region = std::move(memory);
  made->parts = {{0, 4096}, {4096, 10}};
  return made;
}

TEST(AdapterTransfer, HandsMemoryToRanksOfThisHostAndSendsBytesToOthers) {
  const auto adapter = in_region();
  ChunkWindows windows;
  AdapterTransfer transfer(3, 2, 1, adapter, windows, kNow);
  std::vector<int32_t> asked;
  const auto envelopes = transfer.start(kNow, [&](int32_t rank, uint64_t number, const Descriptor& memory) {
    asked.push_back(rank);
    EXPECT_EQ(number, 3u);
    EXPECT_EQ(memory.get(), adapter->region.descriptor().get());
    return rank == 0;
  });
  EXPECT_EQ(asked, (std::vector<int32_t>{0, 1}));
  ASSERT_EQ(envelopes.size(), 3u);
  const auto region = order_in<AdapterRegion>(envelopes[0]);
  EXPECT_EQ(envelopes[0].rank, 0);
  EXPECT_EQ(region.digest, "d1");
  EXPECT_EQ(region.slot, 1);
  EXPECT_EQ(region.region_bytes, 4096u + 10);
  EXPECT_EQ(region.offset, 0u);
  EXPECT_EQ(region.bytes, 4096u);
  EXPECT_EQ(order_in<AdapterBegin>(envelopes[1]).bytes, 10u);
  EXPECT_EQ(order_in<AdapterChunk>(envelopes[2]).bytes, std::vector<uint8_t>(10, 1));
  transfer.chunk_taken(0, kNow);
  EXPECT_TRUE(transfer.more_chunks(0, kNow).empty()) << "it was handed over";
}

TEST(AdapterTransfer, SendsBytesToARankThatHasNotGotTheMemory) {
  ChunkWindows windows;
  AdapterTransfer transfer(3, 2, 1, in_region(), windows, kNow);
  transfer.start(kNow, [](int32_t, uint64_t, const Descriptor&) { return true; });
  const auto later = kNow + std::chrono::seconds(1);
  const auto envelopes = transfer.chunks_wanted(1, "it is lost", later);
  ASSERT_EQ(envelopes.size(), 2u);
  EXPECT_EQ(envelopes[0].rank, 1);
  EXPECT_EQ(order_in<AdapterBegin>(envelopes[0]).bytes, 10u);
  EXPECT_EQ(order_in<AdapterChunk>(envelopes[1]).bytes.size(), 10u);
  EXPECT_EQ(transfer.last_progress(), later);
  EXPECT_FALSE(transfer.finished());
  EXPECT_TRUE(transfer.chunks_wanted(1, "again", later).empty());
  EXPECT_THAT(transfer.error(), HasSubstr("rank 1 takes the adapter in no way: again"));
  EXPECT_TRUE(transfer.have_ranks_failed());
}

TEST(AdapterTransfer, SendsNothingToRanksThatHaveTheAdapterSinceAnEarlierGroup) {
  ChunkWindows windows;
  AdapterTransfer transfer(3, 2, 1, in_region(), windows, kNow);
  std::vector<int32_t> handed_to;
  const AdapterTransfer::HandOver hand_over = [&](int32_t rank, uint64_t, const Descriptor&) {
    handed_to.push_back(rank);
    return true;
  };
  const auto asked = transfer.start(kNow, hand_over, /*confirms=*/true);
  ASSERT_EQ(asked.size(), 2u);
  for (const Envelope& envelope : asked) {
    EXPECT_EQ(order_in<AdapterConfirm>(envelope).digest, "d1");
    EXPECT_EQ(order_in<AdapterConfirm>(envelope).slot, 1);
  }
  EXPECT_TRUE(transfer.more_chunks(1, kNow).empty()) << "it is asked whether it needs any";
  transfer.done(0, {"d1", ""}, kNow);
  EXPECT_FALSE(transfer.has_sent_slices());
  EXPECT_FALSE(transfer.finished()) << "rank 1 has not answered";
  const auto later = kNow + std::chrono::seconds(1);
  const auto sent = transfer.slice_wanted(1, hand_over, later);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].rank, 1);
  EXPECT_EQ(order_in<AdapterRegion>(sent[0]).bytes, 10u);
  EXPECT_EQ(handed_to, (std::vector<int32_t>{1}));
  EXPECT_EQ(transfer.last_progress(), later);
  EXPECT_TRUE(transfer.has_sent_slices());
  transfer.done(1, {"d1", ""}, later);
  EXPECT_TRUE(transfer.finished());
  EXPECT_EQ(transfer.error(), "");
}

TEST(AdapterTransfer, BelievesNoRankThatWantsWhatItHas) {
  ChunkWindows windows;
  AdapterTransfer has(3, 2, 1, adapter_of(5, 5), windows, kNow);
  has.start(kNow, nullptr, true);
  has.done(0, {"d1", ""}, kNow);
  EXPECT_TRUE(has.slice_wanted(0, nullptr, kNow).empty());
  EXPECT_TRUE(has.have_ranks_failed());
  AdapterTransfer gets(3, 2, 1, adapter_of(5, 5), windows, kNow);
  gets.start(kNow);
  EXPECT_TRUE(gets.slice_wanted(1, nullptr, kNow).empty());
  EXPECT_THAT(gets.error(), HasSubstr("rank 1 wants an adapter that it has, or is getting"));
  AdapterTransfer stranger(3, 2, 1, adapter_of(5, 5), windows, kNow);
  EXPECT_TRUE(stranger.slice_wanted(2, nullptr, kNow).empty());
  EXPECT_THAT(stranger.error(), HasSubstr("rank 2 of 2"));
}

TEST(AdapterTransfer, IsFinishedWhenAllRanksHaveTheSameContent) {
  ChunkWindows windows;
  AdapterTransfer transfer(1, 1, 0, adapter_of(5, 5), windows, kNow);
  transfer.done(0, {"d1", ""}, kNow);
  transfer.done(0, {"d1", ""}, kNow);
  EXPECT_FALSE(transfer.finished());
  transfer.done(1, {"d1", ""}, kNow);
  EXPECT_TRUE(transfer.finished());
  EXPECT_EQ(transfer.error(), "");
}

TEST(AdapterTransfer, FailsWithTheFirstRankThatDoes) {
  ChunkWindows windows;
  AdapterTransfer transfer(1, 1, 0, adapter_of(5, 5), windows, kNow);
  transfer.done(1, {"", "out of memory"}, kNow);
  transfer.done(0, {"", "another"}, kNow);
  EXPECT_TRUE(transfer.finished());
  EXPECT_EQ(transfer.error(), "rank 1: out of memory");
  EXPECT_TRUE(transfer.more_chunks(0, kNow).empty());
}

TEST(AdapterTransfer, FailsOnAnotherDigestAndOnStrangers) {
  ChunkWindows windows;
  AdapterTransfer other(1, 1, 0, adapter_of(5, 5), windows, kNow);
  other.done(0, {"d2", ""}, kNow);
  EXPECT_THAT(other.error(), HasSubstr("rank 0 has adapter d2 where d1 was sent"));
  AdapterTransfer stranger(1, 1, 0, adapter_of(5, 5), windows, kNow);
  stranger.done(2, {"d1", ""}, kNow);
  EXPECT_FALSE(stranger.error().empty());
}

DoraValues norms_of_size(size_t size) {
  return {{{std::vector<float>(size, 1.0F)}}};
}

TEST(AdapterTransfer, CollectsTheNormsOfAllRanksAndGivesFactorsBack) {
  ChunkWindows windows;
  AdapterTransfer transfer(1, 1, 0, adapter_of(5, 5), windows, kNow);
  EXPECT_FALSE(transfer.add_norms(0, norms_of_size(3), kNow));
  EXPECT_FALSE(transfer.add_norms(0, norms_of_size(3), kNow)) << "the same rank again";
  EXPECT_TRUE(transfer.add_norms(1, norms_of_size(4), kNow + std::chrono::seconds(1)));
  EXPECT_EQ(transfer.norms()[1].pairs[0].values.size(), 4u);
  EXPECT_EQ(transfer.last_progress(), kNow + std::chrono::seconds(1));
  const std::vector<DoraValues> factors = {{{{{1}}}}, {{{std::vector<float>(100'000, 2.0F)}}}};
  const auto envelopes = transfer.factors(factors);
  ASSERT_GT(envelopes.size(), 2u) << "large values travel in parts";
  EXPECT_EQ(envelopes.front().rank, 0);
  EXPECT_EQ(envelopes.back().rank, 1);
}

TEST(AdapterTransfer, FailsOnNormsOfARankThatItDoesNotHave) {
  ChunkWindows windows;
  AdapterTransfer transfer(1, 1, 0, adapter_of(5, 5), windows, kNow);
  EXPECT_FALSE(transfer.add_norms(2, norms_of_size(3), kNow));
  EXPECT_THAT(transfer.error(), HasSubstr("rank 2 of 2"));
}

}  // namespace
}  // namespace lorikeet::actors
