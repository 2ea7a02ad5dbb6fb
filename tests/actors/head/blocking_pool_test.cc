#include "actors/head/blocking_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

namespace lorikeet::actors {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Jobs that wait until the test lets them go, or return at once. What becomes of them is a line each.
class BlockingPoolTest : public ::testing::Test {
 protected:
  static constexpr std::chrono::milliseconds kSlow{10'000}, kLimit{30'000};

  ~BlockingPoolTest() override {
    for (auto& [key, gate] : gates_) gate.set_value();
    pool_.reset();
    std::unique_lock lock(lines_->mutex);
    lines_->wake.wait(lock, [this] { return lines_->returned == submitted_held_; });
  }

  void make(size_t threads, size_t blocked_threads, size_t queued_bytes = 1 << 20) {
    pool_ = std::make_unique<BlockingPool>(BlockingPool::Limits{threads, blocked_threads, kSlow, queued_bytes});
  }
  void make_with_memory(uint64_t bytes) {
    pool_ = std::make_unique<BlockingPool>(BlockingPool::Limits{4, 4, kSlow, 1 << 20, bytes});
  }

  // Returns when it is let go.
  void hold(const std::string& key, uint64_t bytes = 0) {
    auto began = std::make_shared<std::promise<void>>();
    auto gate = gates_[key].get_future().share();
    ++submitted_held_;
    submit(
        key,
        [began, gate, lines = lines_] {
          began->set_value();
          gate.wait();
          const std::lock_guard lock(lines->mutex);
          ++lines->returned;
          lines->wake.notify_all();
        },
        bytes);
    began->get_future().wait();
  }

  void release(const std::string& key) { gates_.extract(key).mapped().set_value(); }

  void submit(
      const std::string& key, std::function<void()> call = [] {}, uint64_t bytes = 0) {
    pool_->submit({key, kLimit,
                   [call, key, lines = lines_]() -> BlockingPool::Finish {
                     call();
                     return [key, lines] { lines->push("done " + key); };
                   },
                   [key, lines = lines_](const std::string& why) { lines->push("given up " + key + ": " + why); },
                   bytes});
  }
  void submit_of(uint64_t bytes, const std::string& key) {
    submit(
        key, [] {}, bytes);
  }

  std::string next() { return lines_->next(); }

  struct Lines {  // shared with jobs that outlive the pool
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::string> lines;
    int returned = 0;

    void push(std::string line) {
      const std::lock_guard lock(mutex);
      lines.push_back(std::move(line));
      wake.notify_all();
    }
    std::string next() {
      std::unique_lock lock(mutex);
      wake.wait(lock, [this] { return !lines.empty(); });
      std::string line = lines.front();
      lines.pop_front();
      return line;
    }
  };
  std::shared_ptr<Lines> lines_ = std::make_shared<Lines>();
  std::map<std::string, std::promise<void>> gates_;
  int submitted_held_ = 0;
  std::unique_ptr<BlockingPool> pool_;
  const BlockingPool::TimePoint now_ = std::chrono::steady_clock::now();
};

TEST_F(BlockingPoolTest, RunsNoMoreCallsAtATimeThanItHasThreads) {
  make(2, 2);
  hold("a");
  hold("b");
  submit("c");
  pool_->tick(now_);
  release("a");
  EXPECT_EQ(next(), "done a");
  EXPECT_EQ(next(), "done c");
}

TEST_F(BlockingPoolTest, RunsOthersBesideACallThatIsSlow) {
  make(1, 2);
  hold("a");
  submit("b");
  pool_->tick(std::chrono::steady_clock::now() + kSlow + seconds(1));
  EXPECT_EQ(next(), "done b");
  EXPECT_THAT(pool_->left_behind(), IsEmpty());
  release("a");
  EXPECT_EQ(next(), "done a");
}

TEST_F(BlockingPoolTest, GivesUpACallThatDoesNotReturnAndDropsItsResult) {
  make(1, 2);
  hold("a");
  pool_->tick(std::chrono::steady_clock::now() + kLimit + seconds(1));
  EXPECT_EQ(next(), "given up a: it has not returned in 30 s; its thread is left behind");
  EXPECT_THAT(pool_->left_behind(), ElementsAre("a"));
  submit("b");
  EXPECT_EQ(next(), "done b");
  submit("a");
  EXPECT_THAT(next(), HasSubstr("given up a: an earlier attempt has not returned for "));
  release("a");
  // Its thread returns some time after; then the key is served again.
  std::string line;
  while (line != "done a") {
    submit("a");
    line = next();
  }
  EXPECT_THAT(pool_->left_behind(), IsEmpty());
}

TEST_F(BlockingPoolTest, SaysSoWhenAllThreadsAreBlocked) {
  make(1, 1);
  hold("a");
  pool_->tick(std::chrono::steady_clock::now() + kLimit + seconds(1));
  hold("b");
  submit("c");
  pool_->tick(std::chrono::steady_clock::now() + kLimit + seconds(1));
  EXPECT_THAT(next(), HasSubstr("given up a"));
  EXPECT_THAT(next(), HasSubstr("given up b"));
  EXPECT_EQ(next(), "given up c: all 2 threads that may wait for disks are blocked");
  EXPECT_THAT(pool_->left_behind(), ElementsAre("a", "b"));
}

TEST_F(BlockingPoolTest, CancelsWhatHasNotBegun) {
  make(1, 1);
  hold("a");
  submit("b");
  EXPECT_FALSE(pool_->cancel("a"));
  EXPECT_TRUE(pool_->cancel("b"));
  EXPECT_FALSE(pool_->cancel("b"));
  submit("c");
  release("a");
  EXPECT_EQ(next(), "done a");
  EXPECT_EQ(next(), "done c");
}

TEST_F(BlockingPoolTest, RefusesWhatWouldWaitBesideTooMuchElse) {
  make(1, 1, 3000);  // two jobs of about 1 KiB
  hold("a");
  submit("b");
  submit("c");
  submit("d");
  EXPECT_EQ(next(), "given up d: too many others wait for their disks");
  EXPECT_TRUE(pool_->cancel("b"));
  submit("e");
  release("a");
  EXPECT_EQ(next(), "done a");
  EXPECT_EQ(next(), "done c");
  EXPECT_EQ(next(), "done e");
}

TEST_F(BlockingPoolTest, RunsNoMoreCallsAtATimeThanThereIsMemoryFor) {
  make_with_memory(100);
  hold("a", 60);
  submit_of(50, "b");
  submit_of(10, "c");  // would fit, again and again
  pool_->tick(now_);
  EXPECT_TRUE(pool_->cancel("b"));
  EXPECT_EQ(next(), "done c") << "beside a";
  submit_of(41, "d");
  release("a");
  EXPECT_EQ(next(), "done a");
  EXPECT_EQ(next(), "done d");
}

TEST_F(BlockingPoolTest, RunsACallThatTakesMoreMemoryThanThereIsAlone) {
  make_with_memory(100);
  hold("a", 1'000);
  submit_of(1, "b");
  release("a");
  EXPECT_EQ(next(), "done a");
  EXPECT_EQ(next(), "done b");
}

TEST_F(BlockingPoolTest, CountsNoMemoryOfCallsThatItHasGivenUp) {
  make_with_memory(100);
  hold("a", 100);
  submit_of(100, "b");
  pool_->tick(std::chrono::steady_clock::now() + kLimit + seconds(1));
  EXPECT_THAT((std::set<std::string>{next(), next()}),
              ElementsAre("done b", "given up a: it has not returned in 30 s; its thread is left behind"));
}

TEST_F(BlockingPoolTest, EndsWithoutTheCallsThatItHasGivenUp) {
  make(1, 1);
  hold("a");
  pool_->tick(std::chrono::steady_clock::now() + kLimit + seconds(1));
  pool_.reset();
  EXPECT_THAT(next(), HasSubstr("given up a"));
  release("a");
}

TEST_F(BlockingPoolTest, AwaitsTheEndOfCallsWithinTheirLimits) {
  make(2, 1);
  submit("a");
  hold("b");
  release("b");
  pool_.reset();
  EXPECT_THAT((std::set<std::string>{next(), next()}), ElementsAre("done a", "done b"));
}

}  // namespace
}  // namespace lorikeet::actors
