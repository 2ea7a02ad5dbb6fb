#include "actors/wire/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace lorikeet::actors {
namespace {

using Queue = WorkQueue<std::string>;
constexpr size_t kItem = sizeof(std::string);  // what each item takes beside the bytes that it owns

TEST(WorkQueue, GivesWorkInTheOrderInWhichItCame) {
  Queue queue(1000);
  for (const char* item : {"a", "b", "c"}) ASSERT_TRUE(queue.push(item, 1));
  for (const char* item : {"a", "b", "c"}) EXPECT_EQ(queue.pop(), item);
}

TEST(WorkQueue, GivesNothingAtOnceWhereThereIsNothing) {
  Queue queue(1000);
  EXPECT_EQ(queue.try_pop(), std::nullopt);
  queue.push("a", 1);
  queue.push("b", 1);
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.try_pop(), "a");
  EXPECT_EQ(queue.size(), 1u);
}

TEST(WorkQueue, RefusesWhatItHasNoRoomForUntilAThreadHasTakenSome) {
  Queue queue(2 * kItem + 10);
  EXPECT_TRUE(queue.push("a", 4));
  EXPECT_TRUE(queue.push("b", 6));
  EXPECT_EQ(queue.bytes(), 2 * kItem + 10);
  EXPECT_FALSE(queue.push("c", 0)) << "an item takes room, even if it owns nothing";
  EXPECT_EQ(queue.pop(), "a");
  EXPECT_FALSE(queue.push("d", 5));
  EXPECT_TRUE(queue.push("e", 4));
  EXPECT_EQ(queue.bytes(), 2 * kItem + 10);
}

TEST(WorkQueue, RefusesASizeThatWouldOverflow) {
  Queue queue(1000);
  EXPECT_FALSE(queue.push("a", ~size_t{0}));
  EXPECT_FALSE(queue.push("a", ~size_t{0} - kItem + 1));
  EXPECT_EQ(queue.bytes(), 0u);
}

TEST(WorkQueue, TakesBackWhatNoThreadHasYet) {
  Queue queue(1000);
  const auto first = queue.push("first", 5);
  const auto second = queue.push("second", 6);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(queue.cancel(*first), "first");
  EXPECT_EQ(queue.bytes(), kItem + 6);
  EXPECT_FALSE(queue.cancel(*first)) << "once";
  EXPECT_EQ(queue.pop(), "second");
  EXPECT_FALSE(queue.cancel(*second)) << "a thread has it";
  EXPECT_EQ(queue.bytes(), 0u);
}

TEST(WorkQueue, ReturnsWithoutWorkWhenNoneComesInTime) {
  Queue queue(1000);
  EXPECT_FALSE(queue.pop_within(std::chrono::microseconds(1)));
  ASSERT_TRUE(queue.push("a", 0));
  EXPECT_EQ(queue.pop_within(std::chrono::microseconds(1)), "a");
}

TEST(WorkQueue, DropsWhatWaitsWhenItIsClosed) {
  WorkQueue<std::shared_ptr<int>> queue(1000);
  const auto item = std::make_shared<int>(1);
  ASSERT_TRUE(queue.push(item, 0));
  queue.close();
  EXPECT_EQ(item.use_count(), 1);
  EXPECT_TRUE(queue.closed());
  EXPECT_EQ(queue.bytes(), 0u);
  EXPECT_FALSE(queue.pop());
  EXPECT_FALSE(queue.push(item, 0));
}

TEST(WorkQueue, LetsAllThreadsGoThatWaitWhenItIsClosed) {
  Queue queue(1000);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { EXPECT_FALSE(queue.pop()); });
  queue.close();
  for (std::thread& thread : threads) thread.join();
}

TEST(WorkQueue, GivesEveryItemToOneThreadOrBackToWhoCancelledIt) {
  constexpr int kProducers = 3, kConsumers = 3, kItems = 2000;
  WorkQueue<int> queue(64 * sizeof(int));
  std::vector<std::atomic<int>> seen(kProducers * kItems);
  std::vector<std::thread> producers, consumers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < kItems; ++i) {
        const int item = p * kItems + i;
        auto ticket = queue.push(item, 0);
        while (!ticket) {  // full: the consumers make room
          std::this_thread::yield();
          ticket = queue.push(item, 0);
        }
        if (i % 7 != 0) continue;
        if (const auto back = queue.cancel(*ticket)) ++seen[static_cast<size_t>(*back)];
      }
    });
  }
  for (int c = 0; c < kConsumers; ++c) {
    consumers.emplace_back([&] {
      while (const auto item = queue.pop()) ++seen[static_cast<size_t>(*item)];
    });
  }
  for (std::thread& thread : producers) thread.join();
  while (queue.bytes() > 0) std::this_thread::yield();
  queue.close();
  for (std::thread& thread : consumers) thread.join();
  for (const auto& times : seen) EXPECT_EQ(times, 1);
}

}  // namespace
}  // namespace lorikeet::actors
