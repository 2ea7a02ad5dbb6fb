#include "actors/wire/frame_guard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace lorikeet::actors {
namespace {

constexpr uint8_t kDirectMessage = 2, kRoutedMessage = 3, kHeartbeat = 6;

std::vector<uint8_t> header(uint8_t operation, uint32_t length) {
  std::vector<uint8_t> bytes(32, 0);
  bytes[0] = operation;
  for (int i = 0; i < 4; ++i) bytes[static_cast<size_t>(4 + i)] = static_cast<uint8_t>(length >> (24 - 8 * i));
  return bytes;
}

std::vector<uint8_t> frame(uint8_t operation, uint32_t length) {
  const auto head = header(operation, length);
  std::vector<uint8_t> bytes(head.size() + length, 0xFF);
  std::copy(head.begin(), head.end(), bytes.begin());
  return bytes;
}

TEST(FrameGuard, LetsFramesThroughHoweverTheyAreCut) {
  std::vector<uint8_t> stream;
  for (const uint32_t length : {1u, 40u, 1000u}) {
    for (const auto& part : {frame(kDirectMessage, length), frame(kHeartbeat, 0)}) {
      stream.insert(stream.end(), part.begin(), part.end());
    }
  }
  for (const size_t piece : {size_t{1}, size_t{31}, size_t{33}, stream.size()}) {
    FrameGuard guard;
    for (size_t begin = 0; begin < stream.size(); begin += piece) {
      EXPECT_TRUE(guard.take(std::span(stream).subspan(begin, std::min(piece, stream.size() - begin)))) << begin;
    }
  }
}

TEST(FrameGuard, LetsTheLargestPayloadThroughAndNoLargerOne) {
  EXPECT_TRUE(FrameGuard().take(header(kDirectMessage, FrameGuard::kMaxPayload)));
  EXPECT_FALSE(FrameGuard().take(header(kDirectMessage, FrameGuard::kMaxPayload + 1)));
  EXPECT_FALSE(FrameGuard().take(header(kDirectMessage, 0xFFFF'FFFF)));
}

TEST(FrameGuard, RefusesAMessageWithoutAPayloadAndAHeartbeatWithOne) {
  for (uint8_t operation = 0; operation < kHeartbeat; ++operation) {
    EXPECT_FALSE(FrameGuard().take(header(operation, 0))) << int{operation};
  }
  EXPECT_FALSE(FrameGuard().take(header(kHeartbeat, 1)));
}

TEST(FrameGuard, RefusesUnknownOperationsAndMessagesInTheNameOfOthers) {
  EXPECT_FALSE(FrameGuard().take(header(kHeartbeat + 1, 1)));
  EXPECT_FALSE(FrameGuard().take(header(0xFF, 1)));
  EXPECT_FALSE(FrameGuard().take(header(kRoutedMessage, 1)));
}

TEST(FrameGuard, FindsTheForgedHeaderBehindAGoodFrame) {
  FrameGuard guard;
  EXPECT_TRUE(guard.take(frame(kDirectMessage, 100)));
  EXPECT_FALSE(guard.take(header(1, 0)));
}

}  // namespace
}  // namespace lorikeet::actors
