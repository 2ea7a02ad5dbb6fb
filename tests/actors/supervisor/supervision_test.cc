#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/actors/supervisor/supervised.h"

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = Supervision::State;

class SupervisionTest : public ::testing::Test, protected Supervised {};

// ---- starting

TEST_F(SupervisionTest, StartsTheRanksWhenTheHeadAwaitsThem) {
  ASSERT_EQ(processes.started.size(), 1u);
  EXPECT_EQ(processes.started[0].rank, -1);
  say(1, control::AwaitsRanks{});
  ASSERT_EQ(processes.started.size(), 3u);
  EXPECT_EQ(processes.started[1].rank, 0);
  EXPECT_EQ(processes.started[2].rank, 1);
  EXPECT_THAT(processes.heads, ElementsAre(0, 1, 1));
  EXPECT_EQ(processes.started[2].epoch, 1u);
}

TEST_F(SupervisionTest, PassesProgressAndReadinessOn) {
  serve();
  say(2, control::Loading{1, 4});
  say(1, control::Loading{1, 4});  // the head loads nothing
  EXPECT_THAT(progress, ElementsAre("rank 0: layer 1 of 4"));
  EXPECT_THAT(ready, ElementsAre("tcp://127.0.0.1:5555"));
}

TEST_F(SupervisionTest, TakesTheHeadsWordsFromTheHeadAlone) {
  say(1, control::AwaitsRanks{});
  say(2, control::Alive{});
  say(3, control::Alive{});
  say(3, control::Ready{1, "tcp://10.0.0.1:5555"});
  EXPECT_EQ(state(), State::forming);
  EXPECT_THAT(ready, IsEmpty());
  say(1, control::Ready{1, "tcp://127.0.0.1:5555"});
  say(2, control::GroupLost{1, "rank 1 lies", true, {1}});
  EXPECT_EQ(state(), State::serving);
  EXPECT_EQ(decides->epoch(), 1u);
}

TEST_F(SupervisionTest, GivesUpWhenTheFirstStartFails) {
  say(1, control::AwaitsRanks{});
  say(3, control::Failed{"rank 1: model.safetensors is cut short"});
  exit(3, "exited with status 1");
  EXPECT_THAT(progress, ElementsAre("rank 1: model.safetensors is cut short"));
  EXPECT_TRUE(std::holds_alternative<control::Stop>(processes.told.back().second));
  EXPECT_THAT(stopped, IsEmpty());
  exit(1, "exited with status 0");
  EXPECT_THAT(processes.killed, ElementsAre(2));
  exit(2);
  EXPECT_THAT(stopped, ElementsAre(1));
}

TEST_F(SupervisionTest, GivesUpWhenTheHeadCannotStart) {
  say(1, control::Failed{"/nowhere/config.json: no such file"});
  exit(1, "exited with status 1");
  EXPECT_THAT(progress, ElementsAre("/nowhere/config.json: no such file"));
  EXPECT_THAT(stopped, ElementsAre(1));
}

TEST_F(SupervisionTest, LetsGoOfTheMemoryOfARankThatFailsOnItBeforeItServes) {
  serve();
  exit(2);  // killed: what it leaves is as good as before
  EXPECT_EQ(processes.started.size(), 4u);
  EXPECT_THAT(processes.dropped, IsEmpty());
  exit(4, "was killed by signal 11");  // while it takes the memory over
  EXPECT_THAT(processes.dropped, ElementsAre(0));
  serve_again();
  exit(3, "was killed by signal 11");  // while it served: a request's doing, perhaps
  EXPECT_THAT(processes.dropped, ElementsAre(0));
}

TEST_F(SupervisionTest, GivesUpOnAFirstStartThatDoesNotGetOn) {
  say(1, control::AwaitsRanks{});
  beat(2 * 121);
  EXPECT_THAT(processes.killed, ElementsAre(2, 3));
  exit(2);
  exit(3);
  EXPECT_THAT(progress, ElementsAre("no rank has got on in 120 s of starting"));
  EXPECT_EQ(state(), State::stopping);
}

TEST_F(SupervisionTest, LetsALoadTakeAsLongAsItGetsOn) {
  say(1, control::AwaitsRanks{});
  for (int layer = 1; layer < 40; ++layer) {
    beat(200);
    say(3, control::Loading{layer, 40});
  }
  EXPECT_EQ(state(), State::forming);
  EXPECT_THAT(processes.killed, IsEmpty());
}

// ---- whose fault

TEST_F(SupervisionTest, PrefersTheWordsOfTheRankToWhatTheHeadHasHeard) {
  say(1, control::AwaitsRanks{});
  say(3, control::Failed{"rank 1: model.safetensors is cut short"});
  processes.ending = {3};
  say(1, control::GroupLost{1, "rank 1 is gone", false, {1}});
  exit(3, "exited with status 1");
  EXPECT_THAT(progress, ElementsAre("rank 1: model.safetensors is cut short"));
}

TEST_F(SupervisionTest, NamesTheRankThatWasKilledRatherThanThePeerThatMissedIt) {
  serve();
  processes.ending = {3};
  say(2, control::Failed{"rank 0: all_reduce: connection reset by peer"});
  exit(2, "exited with status 1");
  decides->exited(3, "was killed by signal 9", false, SIGKILL, now);
  EXPECT_THAT(progress, ElementsAre("rank 1 was killed by signal 9"));
}

TEST_F(SupervisionTest, TellsWhatARankDidByItselfFromWhatWasDoneToIt) {
  serve();
  exit(3, "was killed by signal 11");
  EXPECT_TRUE(new_epoch().by_rank);
  serve_again();
  exit(4, "was killed by signal 9");
  const control::NewEpoch killed = new_epoch();
  EXPECT_FALSE(killed.by_rank);
  EXPECT_FALSE(killed.doubts_kv);
  serve_again();
  say(1, control::GroupLost{3, "rank 0: the device has failed", true, {0}});
  EXPECT_THAT(processes.killed, ElementsAre(2)) << "the one whose device it is";
  exit(2);
  EXPECT_TRUE(new_epoch().by_rank);
}

TEST_F(SupervisionTest, BlamesNoRankForWhatAStoppedOneHasHeldUp) {
  serve();
  processes.stopped = {3};
  say(2, control::Failed{"rank 0: step 7 has not ended in 2000 ms", true});
  exit(2, "exited with status 1");
  EXPECT_THAT(processes.killed, ElementsAre(3));
  exit(3);
  const control::NewEpoch next = new_epoch();
  EXPECT_FALSE(next.by_rank);
  EXPECT_TRUE(next.doubts_kv) << "rank 0 may have failed of something else";
  EXPECT_THAT(progress, ElementsAre("rank 1 has been stopped by somebody", "rank 0: step 7 has not ended in 2000 ms"));
}

// ---- survivors and successors

TEST_F(SupervisionTest, KeepsTheOthersWhenARankDiesAndStartsItsSuccessorAtOnce) {
  serve();
  exit(3);
  EXPECT_THAT(processes.killed, IsEmpty());
  EXPECT_THAT(told_to_leave(2), ElementsAre(2));
  EXPECT_THAT(progress, ElementsAre("rank 1 was killed by signal 9"));
  EXPECT_EQ(processes.told.back().first, 1u);
  EXPECT_EQ(new_epoch().epoch, 2u);
  ASSERT_EQ(processes.started.size(), 4u);
  EXPECT_EQ(processes.started[3].rank, 1);
  EXPECT_EQ(processes.started[3].epoch, 2u);
  say(2, control::HasLeft{2});
  serve_again();
  EXPECT_EQ(progress.back(), "serving again (epoch 2)");
  EXPECT_THAT(failures, ElementsAre("rank 1 was killed by signal 9")) << "what is served again is none";
  EXPECT_EQ(ready.size(), 1u);
}

TEST_F(SupervisionTest, StartsASuccessorOnlyWhenItsPredecessorIsDead) {
  serve();
  processes.ending = {3};
  say(1, control::GroupLost{1, "rank 0: connection reset by peer", false, {}});
  EXPECT_EQ(processes.started.size(), 3u) << "the other rank still holds its device";
  EXPECT_EQ(state(), State::losing);
  decides->exited(3, "was killed by signal 9", false, SIGKILL, now);
  EXPECT_EQ(processes.started.size(), 4u);
  say(1, control::GroupLost{1, "late", false, {}});
  EXPECT_EQ(decides->epoch(), 2u) << "of an epoch that is over";
}

// Who has been reaped is not to be seen any more, and its exit is on its way behind what its peers say.
TEST_F(SupervisionTest, CountsALossOnceWhosePeersAreHeardBetweenTheEndAndTheExit) {
  serve();
  processes.gone = {3};
  say(1, control::GroupLost{1, "rank 0: connection reset by peer", false, {}});
  EXPECT_EQ(state(), State::losing);
  EXPECT_EQ(processes.started.size(), 3u) << "no successor before the exit is told";
  decides->exited(3, "was killed by signal 9", false, SIGKILL, now);
  EXPECT_THAT(progress, ElementsAre("rank 1 was killed by signal 9"));
  EXPECT_EQ(processes.started.size(), 4u);
  EXPECT_EQ(decides->epoch(), 2u);
}

TEST_F(SupervisionTest, KeepsAllWhereOnlyALinkIsLost) {
  serve();
  say(1, control::GroupLost{1, "rank 0: connection reset by peer", false, {}});
  EXPECT_THAT(told_to_leave(2), ElementsAre(2, 3));
  EXPECT_EQ(processes.started.size(), 3u);
  serve_again();
  EXPECT_EQ(state(), State::serving);
}

TEST_F(SupervisionTest, KillsAllWhereARankFailedAndItIsNotKnownWhich) {
  serve();
  say(1, control::GroupLost{1, "ranks 0 and 1 disagree", true, {}});
  EXPECT_THAT(processes.killed, ElementsAre(2, 3));
  exit(2);
  EXPECT_EQ(processes.started.size(), 3u);
  exit(3);
  EXPECT_EQ(processes.started.size(), 5u);
  EXPECT_THAT(progress, ElementsAre("ranks 0 and 1 disagree")) << "a rank that was killed on purpose is no news";
}

TEST(Supervision, TellsSurvivorsOnEveryKindOfDeviceToLeave) {
  Supervised server("cuda");
  server.serve();
  server.exit(3);
  EXPECT_THAT(server.processes.killed, IsEmpty());
  EXPECT_THAT(server.told_to_leave(2), ElementsAre(2));
  EXPECT_EQ(server.processes.started.size(), 4u) << "the dead one's successor";
}

TEST_F(SupervisionTest, TellsSurvivorsOfEveryLossOnTheWay) {
  serve();
  exit(3);
  say(2, control::HasLeft{2});
  exit(4);
  EXPECT_THAT(told_to_leave(3), ElementsAre(2));
  EXPECT_EQ(decides->epoch(), 3u);
  exit(2);
  EXPECT_EQ(decides->epoch(), 4u);
  EXPECT_THAT(told_to_leave(4), ElementsAre(5));
  EXPECT_EQ(processes.started.size(), 6u);
}

TEST_F(SupervisionTest, ReplacesASurvivorThatDoesNotLeaveInTime) {
  serve();
  exit(3);
  beat(11);
  EXPECT_THAT(processes.killed, ElementsAre(2));
  exit(2);
  EXPECT_EQ(progress.back(), "rank 0 (process 102) has not left the group in time");
  EXPECT_EQ(processes.started.back().rank, 0);
}

// ---- who does not answer

TEST_F(SupervisionTest, ReplacesARankThatIsSilent) {
  serve();
  beat(10, {3});
  EXPECT_THAT(processes.killed, IsEmpty());
  beat(1, {3});
  EXPECT_THAT(processes.killed, ElementsAre(3));
  exit(3);
  EXPECT_EQ(progress.back(), "rank 1 (process 103) does not answer");
  EXPECT_FALSE(new_epoch().by_rank);
  EXPECT_EQ(processes.started.size(), 4u);
}

TEST_F(SupervisionTest, ReplacesAHeadThatIsSilent) {
  serve();
  beat(11, {1});
  EXPECT_THAT(processes.killed, ElementsAre(1));
  exit(1);
  EXPECT_EQ(progress.back(), "the head (process 101) does not answer");
  EXPECT_THAT(processes.killed, ElementsAre(1, 2, 3));
  EXPECT_EQ(processes.started.back().rank, -1);
  EXPECT_EQ(processes.started.back().options.zmq_address, "tcp://127.0.0.1:5555");
}

TEST_F(SupervisionTest, WaitsLongerForAFirstWord) {
  say(1, control::AwaitsRanks{});
  beat(39, {2, 3});
  EXPECT_THAT(processes.killed, IsEmpty());
  beat(3, {2, 3});
  EXPECT_THAT(processes.killed, ElementsAre(2, 3));
}

TEST_F(SupervisionTest, TakesNobodyForSilentSinceItWasStoppedItself) {
  serve();
  now += std::chrono::hours(1);
  beat(5);
  EXPECT_THAT(processes.killed, IsEmpty());
}

TEST_F(SupervisionTest, NamesAndLeavesBehindWhatCannotBeKilled) {
  serve();
  say(1, control::GroupLost{1, "rank 1: the device has failed", true, {1}});
  say(2, control::HasLeft{2});
  beat(10, {3});
  EXPECT_EQ(processes.started.size(), 3u);
  beat(1, {3});
  EXPECT_THAT(progress,
              ElementsAre("rank 1 (process 103) cannot be killed and is left behind", "rank 1: the device has failed"));
  EXPECT_THAT(processes.dropped, ElementsAre(1)) << "it may still write to its memory";
  EXPECT_EQ(processes.started.size(), 4u);
  exit(3);  // after all
  EXPECT_EQ(processes.started.size(), 4u);
  decides->stop(now);
  exit(1, "exited with status 0");
  exit(2);
  exit(4);
  EXPECT_THAT(stopped, ElementsAre(0));
}

// ---- again and again

TEST_F(SupervisionTest, BacksOffWhenTheRanksAreLostAgainAndAgainAndNeverGivesUp) {
  serve();
  uint64_t newest = 3;
  for (int loss = 0; loss < static_cast<int>(RestartPacer::kBurst); ++loss) {
    exit(newest++);
    EXPECT_EQ(state(), State::forming);
    serve_again();
  }
  const size_t started = processes.started.size();
  exit(newest);
  EXPECT_EQ(state(), State::backing_off);
  say(2, control::HasLeft{decides->epoch()});
  EXPECT_THAT(progress.back(), HasSubstr("again and again"));
  EXPECT_EQ(processes.started.size(), started);
  beat(1);
  EXPECT_EQ(processes.started.size(), started + 1);
  for (int loss = 0; loss < 20; ++loss) {
    exit(processes.started.size());
    say(2, control::HasLeft{decides->epoch()});
    beat(61);
    EXPECT_EQ(state(), State::forming);
  }
  EXPECT_THAT(stopped, IsEmpty());
  serve_again();
  EXPECT_EQ(state(), State::serving);
}

// ---- the head

TEST_F(SupervisionTest, StartsTheHeadAnewAtTheSameAddress) {
  serve();
  exit(1, "was killed by signal 11");
  EXPECT_THAT(progress, ElementsAre("the head was killed by signal 11"));
  ASSERT_EQ(processes.started.size(), 4u);
  EXPECT_EQ(processes.started[3].rank, -1);
  EXPECT_EQ(processes.started[3].options.zmq_address, "tcp://127.0.0.1:5555");
  EXPECT_EQ(processes.started[3].epoch, 2u);
  say(4, control::AwaitsRanks{});
  EXPECT_EQ(processes.started.size(), 4u) << "the old ranks are not dead yet";
  exit(2);
  exit(3);
  ASSERT_EQ(processes.started.size(), 6u);
  EXPECT_EQ(processes.heads[5], 4u);
}

TEST_F(SupervisionTest, StartsNoRanksForAHeadThatIsEnding) {
  serve();
  processes.ending = {1};
  say(2, control::Failed{"rank 0: the head is lost"});
  exit(2, "exited with status 1");
  EXPECT_EQ(processes.started.size(), 3u);
  exit(1, "was killed by signal 9");
  EXPECT_THAT(progress, ElementsAre("the head was killed by signal 9"));
  EXPECT_EQ(decides->epoch(), 2u);
  EXPECT_EQ(processes.started.back().rank, -1);
}

// ---- stopping

TEST_F(SupervisionTest, StopsTheHeadBeforeTheRanks) {
  serve();
  decides->stop(now);
  EXPECT_EQ(processes.told.back().first, 1u);
  EXPECT_TRUE(std::holds_alternative<control::Stop>(processes.told.back().second));
  EXPECT_THAT(processes.killed, IsEmpty());
  exit(1, "exited with status 0");
  EXPECT_THAT(processes.killed, ElementsAre(2, 3));
  exit(2);
  exit(3);
  EXPECT_THAT(stopped, ElementsAre(0));
  decides->stop(now);
  EXPECT_EQ(stopped.size(), 1u);
}

TEST_F(SupervisionTest, KillsAHeadThatDoesNotStop) {
  serve();
  decides->stop(now);
  beat(8, {1, 2, 3});
  EXPECT_THAT(processes.killed, IsEmpty());
  beat(4, {1, 2, 3});
  EXPECT_THAT(processes.killed, ElementsAre(1, 2, 3));
}

TEST_F(SupervisionTest, StopsWhileItRestarts) {
  serve();
  processes.ending = {3};
  say(1, control::GroupLost{1, "rank 1 is gone", false, {1}});
  decides->stop(now);
  exit(3);
  EXPECT_EQ(processes.started.size(), 3u);
  exit(1, "exited with status 0");
  exit(2);
  EXPECT_THAT(stopped, ElementsAre(0));
}

TEST_F(SupervisionTest, EndsAtOnceWhenItIsAskedASecondTime) {
  serve();
  decides->stop(now);
  EXPECT_THAT(processes.killed, IsEmpty());
  decides->stop(now);
  EXPECT_THAT(processes.killed, ElementsAre(1, 2, 3));
  for (const uint64_t child : {1, 2, 3}) exit(child);
  EXPECT_THAT(stopped, ElementsAre(0));
}

// ---- several hosts

TEST_F(SupervisionTest, WaitsForARanksHostForAsLongAsItTakes) {
  serve();
  exit(3, "is lost with its host");
  say(2, control::HasLeft{2});
  ASSERT_EQ(processes.started.size(), 4u);
  processes.awaiting = {4};
  beat(2000, {4});
  EXPECT_EQ(state(), State::forming);
  EXPECT_THAT(processes.killed, IsEmpty());
  EXPECT_EQ(processes.started.size(), 4u);
  processes.awaiting.clear();
  beat(39, {4});
  EXPECT_THAT(processes.killed, IsEmpty()) << "its time begins with its process";
  beat(2, {4});
  EXPECT_THAT(processes.killed, ElementsAre(4));
}

}  // namespace
}  // namespace lorikeet::actors
