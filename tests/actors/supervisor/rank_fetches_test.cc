#include "actors/supervisor/rank_fetches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/actors/supervisor/checkpoint_head.h"
#include "tests/model/checkpoint/same_weights.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using tests::TempDir;

// Ranks whose fetches a test awaits.
class RankFetchesTest : public CheckpointFetch {
 protected:
  RankFetches::Callbacks callbacks() {
    return {[this](uint64_t child, const ChildStart& start) {
              const std::lock_guard lock(mutex_);
              ready_.emplace_back(child, start.options.model);
              changed_.notify_all();
            },
            [this](uint64_t, const std::string& why) { note(why); }, [this](const std::string& line) { note(line); }};
  }
  void note(const std::string& line) {
    const std::lock_guard lock(mutex_);
    lines_ += line + "\n";
    changed_.notify_all();
  }
  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(tests::kPatienceMs), condition);
  }
  bool has_said(const std::string& text) {
    return wait([&] { return lines_.find(text) != std::string::npos; });
  }
  ChildStart start(int32_t rank) const { return {options_, 1, rank, 0}; }

  CheckpointFetcher fetcher_{cache(), 0};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::pair<uint64_t, std::string>> ready_;
  std::string lines_;
};

TEST_F(RankFetchesTest, StartRanksOnceAllHaveTheirPart) {
  RankFetches fetches(
      fetcher_, [this] { return head_.dial(); }, callbacks());
  fetches.add(4, start(0));
  fetches.add(5, start(1));
  ASSERT_TRUE(wait([&] { return ready_.size() == 2; })) << lines_;
  EXPECT_EQ(ready_[0].first, 4U);
  EXPECT_EQ(ready_[1].first, 5U);
  EXPECT_THAT(lines_, HasSubstr("rank 1 gets its part of the checkpoint: 100 % of "));
  EXPECT_TRUE(fetches.states().empty());
  EXPECT_FALSE(fetches.remove(4)) << "it is somebody else's now";
}

TEST_F(RankFetchesTest, LookForTheHostsOwnCheckpointWithoutHoldingUpWhoAsks) {
  std::promise<void> disk;
  const auto answers = disk.get_future().share();
  RankFetches::Callbacks callbacks = this->callbacks();
  callbacks.has_own = [&](const ChildStart& start) {
    answers.wait();
    return start.rank == 0;
  };
  RankFetches fetches(
      fetcher_, [this] { return head_.dial(); }, callbacks);
  fetches.add(4, start(0));
  fetches.add(5, start(1));
  const auto states = fetches.states();
  ASSERT_EQ(states.size(), 2U);
  EXPECT_EQ(states[0].description, "looks for the checkpoint");
  disk.set_value();
  ASSERT_TRUE(wait([&] { return ready_.size() == 2; })) << lines_;
  EXPECT_EQ(ready_[0].second, options_.model);
  EXPECT_EQ(fs::path(ready_[1].second).parent_path().string(), cache().string());
}

TEST_F(RankFetchesTest, AreForgottenWhereTheHeadsCheckpointCannotBeLoaded) {
  tests::write_file(head_.model() / "config.json", "{");
  RankFetches fetches(
      fetcher_, [this] { return head_.dial(); }, callbacks());
  fetches.add(4, start(0));
  ASSERT_TRUE(has_said("the head's checkpoint cannot be loaded: ")) << lines_;
  EXPECT_FALSE(fetches.remove(4)) << "its end was told";
}

// Parts of another day leave room for the first rank, and none for the second: with them goes what the first one had.
TEST_F(RankFetchesTest, GetAgainWhatWasEmptiedForOneThatCameLater) {
  options_.tensor_parallel_size = 4;
  const auto fetch_rank = [&](CheckpointFetcher& fetcher, int32_t rank) {
    const Got folder = fetch(fetcher, rank);
    EXPECT_TRUE(folder) << folder.error().why;
    return folder.value_or("");
  };
  uint64_t three_parts = 0;
  {
    const TempDir elsewhere;
    CheckpointFetcher measured(elsewhere.path(), 0);
    for (const int32_t rank : {3, 0, 1}) three_parts = bytes_on_disk(tensors(fetch_rank(measured, rank)));
    CheckpointFetcher before(cache(), 0);
    fetch_rank(before, 3);
  }
  CheckpointFetcher fetcher(cache(), three_parts);  // the files around the tensors do not fit any more
  std::promise<void> both_are_there;
  const auto begin = both_are_there.get_future().share();
  RankFetches::Callbacks callbacks = this->callbacks();
  callbacks.has_own = [&](const ChildStart&) {
    begin.wait();
    return false;
  };
  RankFetches fetches(
      fetcher, [this] { return head_.dial(); }, callbacks);
  fetches.add(4, start(0));
  fetches.add(5, start(1));
  both_are_there.set_value();
  ASSERT_TRUE(wait([&] { return ready_.size() == 2; })) << lines_;
  EXPECT_EQ(fetcher.times_emptied(), 1U);
  for (const auto& [child, folder] : ready_) {
    const auto rank = static_cast<int32_t>(child) - 4;
    tests::expect_same(load(folder, rank), load(head_.model(), rank));
  }
}

TEST_F(RankFetchesTest, AreTriedAgainAndForgottenWhenNobodyWantsThem) {
  std::atomic<bool> cut{true};
  RankFetches fetches(
      fetcher_, [&] { return cut ? Result<comm::TlsConnection>(fail("the cable is out")) : head_.dial(); },
      callbacks());
  fetches.add(4, start(0));
  fetches.add(5, start(1));
  ASSERT_TRUE(has_said("rank 0: the cable is out; it is tried again"));
  const auto states = fetches.states();
  ASSERT_EQ(states.size(), 2U);
  EXPECT_THAT(states[0].description, HasSubstr("the cable is out"));
  EXPECT_TRUE(fetches.remove(4));
  EXPECT_FALSE(fetches.remove(4));
  cut = false;
  ASSERT_TRUE(wait([&] { return !ready_.empty(); })) << lines_;
  EXPECT_EQ(ready_[0].first, 5U);
}

}  // namespace
}  // namespace lorikeet::actors
