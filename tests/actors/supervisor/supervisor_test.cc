#include "actors/supervisor/supervisor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <csignal>

#include "tests/actors/actor_test.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FakeProcesses final : public Processes {
 public:
  ChildId spawn(ChildStart start, ChildId head) override {
    started.push_back(std::move(start));
    heads.push_back(head);
    return started.size();
  }
  void tell(ChildId child, const ChildOrder& order) override { told.emplace_back(child, order); }
  void kill(ChildId child) override { killed.push_back(child); }
  bool is_stopped(ChildId child) override { return std::count(stopped.begin(), stopped.end(), child) > 0; }

  std::vector<ChildStart> started;  // child n is started[n - 1]
  std::vector<ChildId> heads;       // that they are connected with
  std::vector<std::pair<ChildId, ChildOrder>> told;
  std::vector<ChildId> killed, stopped;
};

class SupervisorTest : public ActorTest {
 protected:
  void SetUp() override {
    SupervisorSetup setup;
    setup.options.tensor_parallel_size = 2;
    setup.options.zmq_address = "tcp://*:0";
    setup.processes = &processes_;
    setup.progress = [this](const std::string& line) { progress_.push_back(line); };
    setup.loading = [this](int32_t rank, int32_t done, int32_t total) {
      progress_.push_back(fmt::format("rank {}: layer {} of {}", rank, done, total));
    };
    setup.ready = [this](const control::Ready& ready) { ready_.push_back(ready.address); };
    setup.stopped = [this](int status) { stopped_.push_back(status); };
    supervisor_ = system_.spawn(supervisor, std::move(setup));
    run();
  }

  void TearDown() override { end(supervisor_); }

  void say(uint64_t child, ChildReport report) { tell(supervisor_, ChildSaid{child, std::move(report)}); }
  void exit(uint64_t child, const std::string& how = "was killed by signal 9") {
    const bool on_purpose = std::count(processes_.killed.begin(), processes_.killed.end(), child) > 0;
    tell(supervisor_, ChildExited{child, how, on_purpose, how == "was killed by signal 11" ? SIGSEGV : 0});
  }

  const control::NewEpoch& new_epoch() const { return std::get<control::NewEpoch>(processes_.told.back().second); }

  // Head 1, ranks 2 and 3.
  void serve() {
    say(1, control::AwaitsRanks{});
    say(1, control::Ready{1, "tcp://127.0.0.1:5555"});
  }

  FakeProcesses processes_;
  std::vector<std::string> progress_, ready_;
  std::vector<int> stopped_;
  SupervisorActor supervisor_;
};

TEST_F(SupervisorTest, StartsTheRanksWhenTheHeadAwaitsThem) {
  ASSERT_EQ(processes_.started.size(), 1u);
  EXPECT_EQ(processes_.started[0].rank, -1);
  say(1, control::AwaitsRanks{});
  ASSERT_EQ(processes_.started.size(), 3u);
  EXPECT_EQ(processes_.started[1].rank, 0);
  EXPECT_EQ(processes_.started[2].rank, 1);
  EXPECT_THAT(processes_.heads, ElementsAre(0, 1, 1));
  EXPECT_EQ(processes_.started[2].epoch, 1u);
}

TEST_F(SupervisorTest, PassesProgressAndReadinessOn) {
  serve();
  say(2, control::Loading{1, 4});
  say(1, control::Loading{1, 4});  // the head loads nothing
  EXPECT_THAT(progress_, ElementsAre("rank 0: layer 1 of 4"));
  EXPECT_THAT(ready_, ElementsAre("tcp://127.0.0.1:5555"));
}

TEST_F(SupervisorTest, GivesUpWhenTheFirstStartFails) {
  say(1, control::AwaitsRanks{});
  say(3, control::Failed{"rank 1: model.safetensors is cut short"});
  exit(3, "exited with status 1");
  EXPECT_THAT(processes_.killed, ElementsAre(2));
  exit(2);
  EXPECT_THAT(progress_, ElementsAre("rank 1: model.safetensors is cut short"));
  EXPECT_TRUE(std::holds_alternative<control::Stop>(processes_.told.back().second));
  EXPECT_THAT(stopped_, IsEmpty());
  exit(1, "exited with status 0");
  EXPECT_THAT(stopped_, ElementsAre(1));
}

TEST_F(SupervisorTest, PrefersTheWordsOfTheRankToWhatTheHeadHasHeard) {
  say(1, control::AwaitsRanks{});
  say(1, control::GroupLost{1, "rank 1 is gone"});
  say(3, control::Failed{"rank 1: model.safetensors is cut short"});
  exit(3, "exited with status 1");
  exit(2);
  EXPECT_THAT(progress_, ElementsAre("rank 1: model.safetensors is cut short"));
}

TEST_F(SupervisorTest, NamesTheRankThatWasKilledRatherThanThePeerThatMissedIt) {
  serve();
  say(2, control::Failed{"rank 0: all_reduce: connection reset by peer"});
  exit(2, "exited with status 1");
  tell(supervisor_, ChildExited{3, "was killed by signal 9", false});
  EXPECT_THAT(progress_, ElementsAre("rank 1 was killed by signal 9"));
}

TEST_F(SupervisorTest, TellsWhatARankDidByItselfFromWhatWasDoneToIt) {
  serve();
  exit(3, "was killed by signal 11");
  exit(2);
  EXPECT_TRUE(new_epoch().by_rank);
  exit(5, "was killed by signal 9");
  exit(4);
  EXPECT_FALSE(new_epoch().by_rank);
  say(1, control::GroupLost{3, "rank 0: the device has failed", true});
  exit(6);
  exit(7);
  EXPECT_TRUE(new_epoch().by_rank);
}

TEST_F(SupervisorTest, BlamesNoRankForWhatAStoppedOneHasHeldUp) {
  serve();
  processes_.stopped = {3};
  say(2, control::Failed{"rank 0: step 7 has not ended in 2000 ms", true});
  exit(2, "exited with status 1");
  EXPECT_THAT(processes_.killed, ElementsAre(3));
  exit(3);
  EXPECT_FALSE(new_epoch().by_rank);
  EXPECT_THAT(progress_, ElementsAre("rank 1 has been stopped by somebody", "rank 0: step 7 has not ended in 2000 ms"));
}

TEST_F(SupervisorTest, GivesUpWhenTheHeadCannotStart) {
  say(1, control::Failed{"/nowhere/config.json: no such file"});
  exit(1, "exited with status 1");
  EXPECT_THAT(progress_, ElementsAre("/nowhere/config.json: no such file"));
  EXPECT_THAT(stopped_, ElementsAre(1));
}

TEST_F(SupervisorTest, StartsANewEpochWhenARankDies) {
  serve();
  exit(3);
  EXPECT_THAT(processes_.killed, ElementsAre(2));
  EXPECT_EQ(processes_.started.size(), 3u) << "the other rank still holds its device";
  exit(2);
  EXPECT_THAT(progress_, ElementsAre("rank 1 was killed by signal 9"));
  ASSERT_FALSE(processes_.told.empty());
  EXPECT_EQ(processes_.told.back().first, 1u);
  const auto* order = std::get_if<control::NewEpoch>(&processes_.told.back().second);
  ASSERT_NE(order, nullptr);
  EXPECT_EQ(order->epoch, 2u);
  ASSERT_EQ(processes_.started.size(), 5u);
  EXPECT_EQ(processes_.started[3].epoch, 2u);
  EXPECT_EQ(progress_.size(), 1u) << "a rank that was killed on purpose is no news";
  say(1, control::Ready{2, "tcp://127.0.0.1:5555"});
  EXPECT_EQ(progress_.back(), "serving again (epoch 2)");
  EXPECT_EQ(ready_.size(), 1u);
}

TEST_F(SupervisorTest, StartsANewEpochWhenTheHeadGivesTheGroupUp) {
  serve();
  say(1, control::GroupLost{1, "ranks 0 and 1 disagree"});
  EXPECT_THAT(processes_.killed, ElementsAre(2, 3));
  exit(2);
  exit(3);
  EXPECT_EQ(processes_.started.size(), 5u);
  say(1, control::GroupLost{1, "late"});
  EXPECT_EQ(processes_.started.size(), 5u) << "of an epoch that is over";
}

TEST_F(SupervisorTest, StartsTheHeadAnewAtTheSameAddress) {
  serve();
  exit(1, "was killed by signal 11");
  EXPECT_THAT(progress_, ElementsAre("the head was killed by signal 11"));
  ASSERT_EQ(processes_.started.size(), 4u);
  EXPECT_EQ(processes_.started[3].rank, -1);
  EXPECT_EQ(processes_.started[3].options.zmq_address, "tcp://127.0.0.1:5555");
  EXPECT_EQ(processes_.started[3].epoch, 2u);
  say(4, control::AwaitsRanks{});
  EXPECT_EQ(processes_.started.size(), 4u) << "the old ranks are not dead yet";
  exit(2);
  exit(3);
  ASSERT_EQ(processes_.started.size(), 6u);
  EXPECT_EQ(processes_.heads[5], 4u);
}

TEST_F(SupervisorTest, GivesUpAfterFailuresInARow) {
  serve();
  uint64_t next_rank = 2;
  for (int failure = 0; failure < 3; ++failure) {
    exit(next_rank);
    exit(next_rank + 1);
    next_rank += 2;
    EXPECT_EQ(processes_.started.size(), next_rank + 1);
  }
  exit(next_rank);
  exit(next_rank + 1);
  EXPECT_TRUE(std::holds_alternative<control::Stop>(processes_.told.back().second));
  exit(1, "exited with status 0");
  EXPECT_THAT(stopped_, ElementsAre(1));
}

TEST_F(SupervisorTest, StopsTheHeadBeforeTheRanks) {
  serve();
  tell(supervisor_, StopServer{});
  EXPECT_EQ(processes_.told.back().first, 1u);
  EXPECT_TRUE(std::holds_alternative<control::Stop>(processes_.told.back().second));
  EXPECT_THAT(processes_.killed, IsEmpty());
  exit(1, "exited with status 0");
  EXPECT_THAT(processes_.killed, ElementsAre(2, 3));
  exit(2);
  exit(3);
  EXPECT_THAT(stopped_, ElementsAre(0));
  tell(supervisor_, StopServer{});
  EXPECT_EQ(stopped_.size(), 1u);
}

TEST_F(SupervisorTest, KillsAHeadThatDoesNotStop) {
  serve();
  tell(supervisor_, StopServer{});
  advance(std::chrono::seconds(4));
  EXPECT_THAT(processes_.killed, IsEmpty());
  advance(std::chrono::seconds(2));
  EXPECT_THAT(processes_.killed, ElementsAre(1, 2, 3));
}

TEST_F(SupervisorTest, StopsWhileItRestarts) {
  serve();
  exit(3);
  tell(supervisor_, StopServer{});
  exit(2);
  EXPECT_EQ(processes_.started.size(), 3u);
  exit(1, "exited with status 0");
  EXPECT_THAT(stopped_, ElementsAre(0));
}

TEST_F(SupervisorTest, EndsAtOnceWhenItIsAskedASecondTime) {
  serve();
  tell(supervisor_, StopServer{});
  EXPECT_THAT(processes_.killed, IsEmpty());
  tell(supervisor_, StopServer{});
  EXPECT_THAT(processes_.killed, ElementsAre(1, 2, 3));
  for (const uint64_t child : {1, 2, 3}) exit(child);
  EXPECT_THAT(stopped_, ElementsAre(0));
}

}  // namespace
}  // namespace lorikeet::actors
