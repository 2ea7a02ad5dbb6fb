#include "kernels/base/borrowed_buffer.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <utility>

namespace lorikeet::kernels {
namespace {

TEST(BorrowedBuffer, KeepsItsOwnerUntilItEnds) {
  alignas(256) std::array<unsigned char, 256> memory{};
  auto owner = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = owner;
  {
    DeviceBuffer first = borrowed_buffer(memory.data(), memory.size(), std::move(owner));
    EXPECT_EQ(first.data(), memory.data());
    EXPECT_EQ(first.bytes(), memory.size());
    const DeviceBuffer moved = std::move(first);
    EXPECT_FALSE(watched.expired());
  }
  EXPECT_TRUE(watched.expired());
}

TEST(BorrowedBuffer, OfNoBytesIsEmptyAndHasNothingToDoWithTheNextAllocation) {
  alignas(256) std::array<unsigned char, 256> memory{};
  auto owner = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = owner;
  const DeviceBuffer none = borrowed_buffer(memory.data(), 0, std::move(owner));
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_TRUE(watched.expired());
  const auto next = DeviceBuffer::allocate(16, "a test");  // fails where there is no device
  if (next) {
    EXPECT_NE(next->data(), memory.data());
  }
}

}  // namespace
}  // namespace lorikeet::kernels
