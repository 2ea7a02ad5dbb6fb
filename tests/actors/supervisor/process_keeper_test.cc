#include "actors/supervisor/process_keeper.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

namespace lorikeet::actors {
namespace {

class ProcessKeeperTest : public ::testing::Test {
 protected:
  ProcessKeeper::Callbacks callbacks() {
    return {[](ProcessKeeper::ChildId, const ChildReport&) {},
            [this](ProcessKeeper::ChildId, const std::string& how, bool on_purpose, int signal) {
              {
                const std::lock_guard lock(mutex_);
                how_ = how;
                on_purpose_ = on_purpose;
                signal_ = signal;
                ++exited_;
              }
              wake_.notify_one();
            }};
  }

  void wait_for_exits(int count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(wake_.wait_for(lock, std::chrono::seconds(60), [&] { return exited_ >= count; }));
  }

  static size_t entries_of(const char* directory) {
    const std::filesystem::directory_iterator all(directory);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  // Waits for what ends on its own; the number that is left.
  static size_t settled(const char* directory, size_t wanted) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (entries_of(directory) > wanted && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    return entries_of(directory);
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  int exited_ = 0;
  std::string how_;
  bool on_purpose_ = false;
  int signal_ = 0;
};

TEST_F(ProcessKeeperTest, LeavesNoDescriptorAndNoThreadOfFiftyDeadChildren) {
  ProcessKeeper keeper(callbacks(), "/bin/true");
  const auto start_one = [&](int number) {
    ChildStart start;
    start.rank = number % 2;
    keeper.spawn(start, 1);
    wait_for_exits(number);
  };
  std::thread([] {}).join();  // with the first one the thread sanitizer starts one of its own
  const size_t descriptors = entries_of("/proc/self/fd");
  const size_t threads = entries_of("/proc/self/task");
  for (int number = 1; number <= 50; ++number) start_one(number);
  EXPECT_LE(settled("/proc/self/fd", descriptors), descriptors);
  EXPECT_LE(settled("/proc/self/task", threads), threads);
  EXPECT_EQ(how_, "exited with status 0");
}

TEST_F(ProcessKeeperTest, KnowsWhomItHasKilledItself) {
  const auto script = std::filesystem::temp_directory_path() / fmt::format("lorikeet-test-{}.sh", getpid());
  std::ofstream(script) << "#!/bin/sh\nkill -s STOP $$\nexec sleep 1000\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  {
    ProcessKeeper keeper(callbacks(), script);
    keeper.kill(keeper.spawn(ChildStart(), 0));
    wait_for_exits(1);
    EXPECT_TRUE(on_purpose_ || how_ == "was not wanted any more") << how_;
    on_purpose_ = false;
    keeper.spawn(ChildStart(), 0);  // killed at the end of the block
  }
  wait_for_exits(2);
  EXPECT_TRUE(on_purpose_ || how_ == "was not wanted any more") << how_;
  std::filesystem::remove(script);

  ProcessKeeper keeper(callbacks(), "/bin/false");
  const auto id = keeper.spawn(ChildStart(), 0);
  wait_for_exits(3);
  keeper.kill(id);  // too late
  EXPECT_EQ(how_, "exited with status 1");
  EXPECT_FALSE(on_purpose_);
}

TEST_F(ProcessKeeperTest, SeesWhoIsStoppedAndWhatEndedIt) {
  const auto script = std::filesystem::temp_directory_path() / fmt::format("lorikeet-test-{}.sh", getpid());
  std::ofstream(script) << "#!/bin/sh\nkill -s STOP $$\nexec sleep 1000\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  ProcessKeeper keeper(callbacks(), script);
  const auto id = keeper.spawn(ChildStart(), 0);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!keeper.is_stopped(id) && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  EXPECT_TRUE(keeper.is_stopped(id));
  keeper.kill(id);
  wait_for_exits(1);
  EXPECT_EQ(signal_, SIGKILL);
  EXPECT_FALSE(keeper.is_stopped(id)) << "it is gone";
  std::filesystem::remove(script);
}

// What its peers say of its end may be heard before its exit is, and is no loss of its own: who asks then is told that it
// ends, and not that it lives since nothing is to be seen of it.
TEST_F(ProcessKeeperTest, SaysOfWhomItHasReapedOrCouldNotStartThatHeEndsUntilThatIsTold) {
  ProcessKeeper* asked = nullptr;
  bool ends_as_it_is_told = false;
  ProcessKeeper::Callbacks told = callbacks();
  told.exited = [&, count = told.exited](ProcessKeeper::ChildId id, const std::string& how, bool on_purpose,
                                         int signal) {
    ends_as_it_is_told = asked->is_ending(id);
    count(id, how, on_purpose, signal);
  };
  int exits = 0;
  for (const char* program : {"/bin/true", "/nowhere/lorikeet"}) {
    ProcessKeeper keeper(told, program);
    asked = &keeper;
    ends_as_it_is_told = false;
    const auto id = keeper.spawn(ChildStart(), 0);
    wait_for_exits(++exits);
    EXPECT_TRUE(ends_as_it_is_told) << program;
    EXPECT_TRUE(keeper.is_ending(id)) << program;
  }
}

TEST_F(ProcessKeeperTest, TellsThatAProgramCannotBeStarted) {
  ProcessKeeper keeper(callbacks(), "/nowhere/lorikeet");
  keeper.spawn(ChildStart(), 0);
  wait_for_exits(1);
  EXPECT_NE(how_.find("could not be started: No such file"), std::string::npos) << how_;
}

}  // namespace
}  // namespace lorikeet::actors
