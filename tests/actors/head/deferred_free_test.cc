#include "actors/head/deferred_free.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

namespace lorikeet::actors {
namespace {

constexpr uint64_t kMost = 100'000, kHalf = 50'000;

// What says on which thread it was freed, and takes until it is let go.
struct Held {
  std::promise<void> begun, gate;
  std::promise<std::thread::id> freed;
  std::future<std::thread::id> freed_by = freed.get_future();

  std::shared_ptr<const void> owner(bool waits = false) {
    return {this, [waits](Held* held) {
              held->begun.set_value();
              if (waits) held->gate.get_future().wait();
              held->freed.set_value(std::this_thread::get_id());
            }};
  }
  bool is_freed() const { return freed_by.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
};

TEST(DeferredFree, FreesOnItsThread) {
  Held one, other;
  DeferredFree frees(kMost, true);
  frees.free(one.owner(), kHalf);
  frees.free(other.owner(), kHalf);
  const auto by = one.freed_by.get();
  EXPECT_NE(by, std::this_thread::get_id());
  EXPECT_EQ(other.freed_by.get(), by);
}

TEST(DeferredFree, FreesInPlaceWhatWouldWaitBesideTooMuch) {
  Held slow, waits, over, small;
  DeferredFree frees(kMost, false);
  frees.free(slow.owner(true), kHalf);
  slow.begun.get_future().wait();  // it counts until it is freed
  frees.free(waits.owner(), kHalf);
  EXPECT_FALSE(waits.is_freed());
  frees.free(over.owner(), kHalf);
  ASSERT_TRUE(over.is_freed());
  EXPECT_EQ(over.freed_by.get(), std::this_thread::get_id());
  frees.free(small.owner(), 0);  // nothing waits uncounted
  ASSERT_TRUE(small.is_freed());
  EXPECT_EQ(small.freed_by.get(), std::this_thread::get_id());
  slow.gate.set_value();
  EXPECT_NE(slow.freed_by.get(), std::this_thread::get_id());
  EXPECT_NE(waits.freed_by.get(), std::this_thread::get_id());
}

TEST(DeferredFree, LetsOneThatIsLargerThanAllWaitAlone) {
  Held large, over;
  DeferredFree frees(kMost, false);
  frees.free(large.owner(true), ~uint64_t{0});
  large.begun.get_future().wait();
  frees.free(over.owner(), kHalf);
  EXPECT_TRUE(over.is_freed());
  large.gate.set_value();
  EXPECT_NE(large.freed_by.get(), std::this_thread::get_id());
}

TEST(DeferredFree, FreesInPlaceAsLongAsTheSystemGivesNoThread) {
  Held without, with;
  bool gives = false;
  DeferredFree frees(kMost, false, [&](std::function<void()> body) {
    if (!gives) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
    return std::thread(std::move(body));
  });
  frees.free(without.owner(), kHalf);
  ASSERT_TRUE(without.is_freed());
  EXPECT_EQ(without.freed_by.get(), std::this_thread::get_id());
  gives = true;
  frees.free(with.owner(), kMost);  // nothing is counted of the one before
  EXPECT_NE(with.freed_by.get(), std::this_thread::get_id());
}

TEST(DeferredFree, FreesAllBeforeItEnds) {
  Held slow, waits;
  auto frees = std::make_unique<DeferredFree>(kMost, false);
  frees->free(slow.owner(true), kHalf);
  frees->free(waits.owner(), kHalf);
  slow.begun.get_future().wait();
  slow.gate.set_value();
  frees.reset();
  EXPECT_TRUE(slow.is_freed());
  EXPECT_TRUE(waits.is_freed());
}

}  // namespace
}  // namespace lorikeet::actors
