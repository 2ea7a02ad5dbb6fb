#include "actors/head/adapter_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/head/adapter_tables_test.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::IsEmpty;

using AdapterSlotsTest = AdapterTablesTest;

TEST_F(AdapterSlotsTest, GivesASlotWhenAllRanksHaveTheAdapter) {
  make({2, 4, 100});
  claim(1, "a", "A");
  wishes();
  acquire(1, "A");
  EXPECT_THAT(wishes(), IsEmpty()) << "no ranks yet";
  tables_->group_formed();
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 0"));
  acquire(2, "A");
  EXPECT_THAT(wishes(), IsEmpty());
  tables_->sent("A", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 1 0", "acquired 2 0"));
  acquire(3, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 3 0"));
  EXPECT_EQ(row("a").leases, 3u);
  EXPECT_EQ(row("a").slot_state, "resident");
}

TEST_F(AdapterSlotsTest, RollsBackEverywhereWhenARankRefuses) {
  make({1, 4, 100});
  tables_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  acquire(1, "A");
  acquire(2, "B");
  wishes();
  tables_->sent("A", "rank 1: out of memory");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("clear 0", "acquired 1 error: rank 1: out of memory", "send B to 0"));
  EXPECT_EQ(row("a").slot_state, "none");
  EXPECT_EQ(row("a").error, "rank 1: out of memory");
}

TEST_F(AdapterSlotsTest, EvictsTheLeastRecentlyUsedSlotThatNobodyLeases) {
  make({2, 4, 100});
  tables_->group_formed();
  uint64_t id = 0;
  for (const char* name : {"a", "b", "c"}) claim(++id, name, std::string(1, static_cast<char>(name[0] - 32)));
  acquire(1, "A");
  acquire(2, "B");
  tables_->sent("A", "");
  tables_->sent("B", "");
  wishes();
  acquire(3, "C");
  EXPECT_THAT(wishes(), IsEmpty()) << "all slots are leased";
  release(2, "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send C to 1"));
  tables_->sent("C", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 3 1"));
  EXPECT_EQ(row("b").slot_state, "none");
  EXPECT_EQ(row("b").host, "staged");
  EXPECT_EQ(row("a").slot_state, "resident");
}

TEST_F(AdapterSlotsTest, LetsNoStreamOfRequestsForResidentAdaptersKeepAnotherOneOut) {
  make({1, 4, 100});
  tables_->group_formed();
  claim(1, "a", "A");
  acquire(1, "A");
  tables_->sent("A", "");
  claim(100, "b", "B");
  acquire(100, "B");
  wishes();
  // A new request for A comes before the one that runs has ended, again and again.
  uint64_t id = 1;
  std::vector<std::string> lines;
  for (int round = 0; round < 3; ++round) {
    claim(id + 1, "a", "A");
    acquire(id + 1, "A");
    release(id, "A");
    unclaim(id++);
    for (const std::string& line : wishes()) lines.push_back(line);
  }
  EXPECT_THAT(lines, ::testing::Contains("send B to 0"));
  EXPECT_THAT(lines, ::testing::Not(::testing::Contains("acquired 2 0"))) << "it came after B's";
  tables_->sent("B", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 100 0"));
  release(100, "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 0")) << "whose requests waited meanwhile";
  tables_->sent("A", "");
  EXPECT_THAT(wishes(), ::testing::Contains("acquired " + std::to_string(id) + " 0"));
}

TEST_F(AdapterSlotsTest, DrainsOneResidentAdapterForEachThatWaits) {
  make({2, 4, 100});
  tables_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  claim(3, "b", "B");
  claim(4, "c", "C");
  acquire(1, "A");
  acquire(2, "B");
  acquire(3, "B");
  tables_->sent("A", "");
  tables_->sent("B", "");
  acquire(4, "C");
  wishes();
  claim(5, "b", "B");
  claim(6, "a", "A");
  wishes();
  acquire(5, "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 5 1")) << "A has fewer leases and gives way";
  acquire(6, "A");
  EXPECT_THAT(wishes(), IsEmpty());
  release(4, "C");  // cancelled
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 6 0")) << "nobody waits any more";
}

TEST_F(AdapterSlotsTest, SparesTheSlotOfAnAdapterThatRequestsWaitFor) {
  make({2, 4, 100});
  tables_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  claim(3, "c", "C");
  acquire(1, "A");
  acquire(2, "B");
  tables_->sent("A", "");
  tables_->sent("B", "");
  release(1, "A");
  release(2, "B");
  unclaim(2);  // nobody wants B any more; A is older, but request 1 still claims it
  wishes();
  acquire(3, "C");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send C to 1"));
}

TEST_F(AdapterSlotsTest, FillsTheSlotsOfANewGroupAgain) {
  make({2, 4, 100});
  tables_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  acquire(1, "A");
  tables_->sent("A", "");
  acquire(2, "B");
  wishes();
  tables_->group_lost();
  EXPECT_EQ(row("a").slot_state, "none");
  EXPECT_EQ(row("a").leases, 0u);
  tables_->sent("B", "late");
  EXPECT_THAT(wishes(), IsEmpty()) << "of the lost group";
  tables_->group_formed();
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send B to 1")) << "each has kept its slot";
  acquire(1, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 0"));
}

// A head that has taken the place of one that died does not know what that one had put there.
TEST(AdapterSlots, AreEmptiedByTheFirstGroupWhereTheirBytesAreCounted) {
  AdapterSlots slots({2, 100});
  slots.group_formed();
  std::vector<int32_t> cleared;
  for (const auto& effect : slots.take_effects()) cleared.push_back(std::get<AdapterSlots::Clear>(effect).slot);
  EXPECT_THAT(cleared, ::testing::ElementsAre(0, 1));
}

// Adapters n0, n1, ... of whom nobody needs a file.
class ManySlotsTest : public ::testing::Test {
 protected:
  void make(AdapterSlots::Limits limits) {
    slots_ = std::make_unique<AdapterSlots>(limits);
    slots_->group_formed();
    slots_->take_effects();
  }
  static std::string digest(int i) { return "n" + std::to_string(i); }
  void acquire(uint64_t id, int i, uint64_t bytes = 10) {
    slots_->claimed(digest(i));
    slots_->acquire(SequenceId(id), digest(i), staged(digest(i), bytes));
  }
  void end(uint64_t id, int i) {
    slots_->release(SequenceId(id), digest(i));
    slots_->unclaimed(digest(i));
  }
  // A request comes, has the adapter sent where it must be, and ends.
  void use(uint64_t id, int i, uint64_t bytes = 10) {
    acquire(id, i, bytes);
    slots_->sent(digest(i), "");
    end(id, i);
  }
  std::vector<std::string> wishes(bool with_clears = false) {
    std::vector<std::string> lines;
    for (const auto& effect : slots_->take_effects()) {
      if (const auto* send = std::get_if<AdapterSlots::Send>(&effect)) {
        lines.push_back("send " + send->adapter->digest);
      } else if (const auto* acquired = std::get_if<AdapterSlots::Acquired>(&effect)) {
        lines.push_back("acquired " + std::to_string(acquired->id.value()) + " " + acquired->error);
      } else if (const auto* way = std::get_if<AdapterSlots::GiveWay>(&effect)) {
        lines.push_back(way->digest + (way->wanted ? " gives way" : " stays"));
      } else if (const auto* clear = std::get_if<AdapterSlots::Clear>(&effect); clear != nullptr && with_clears) {
        lines.push_back("clear " + clear->digest);
      }
    }
    return lines;
  }
  std::unique_ptr<AdapterSlots> slots_;
};

TEST_F(ManySlotsTest, SendsAFewAtATimeAndLetsTheOthersServeMeanwhile) {
  make({8});
  for (int i = 0; i < 8; ++i) acquire(static_cast<uint64_t>(i), i);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send n0", "send n1", "send n2", "send n3"));
  slots_->sent("n1", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 1 ", "send n4"));
  for (const char* name : {"n0", "n2", "n3", "n4", "n5", "n6", "n7"}) slots_->sent(name, "");
  wishes();
  for (int i = 8; i < 16; ++i) acquire(static_cast<uint64_t>(i), i);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("n0 gives way", "n1 gives way", "n2 gives way", "n3 gives way"))
      << "as many as can be sent, and the others go on";
  end(2, 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("n2 stays", "send n8"));
  end(5, 5);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send n9", "n3 stays")) << "who had no need to give way ended first";
}

TEST_F(ManySlotsTest, TellsWhoGaveWayThatItMayStayWhenNobodyWaitsAnyMore) {
  make({1});
  acquire(1, 1);
  slots_->sent("n1", "");
  acquire(2, 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send n1", "acquired 1 ", "n1 gives way"));
  acquire(3, 1);
  end(2, 2);  // cancelled
  EXPECT_THAT(wishes(), ::testing::ElementsAre("n1 stays", "acquired 3 "));
}

TEST_F(ManySlotsTest, HandsTheSlotOnWhenALoadFailsWhileOthersWaitForIt) {
  make({1});
  acquire(1, 1);
  acquire(2, 2);
  acquire(3, 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send n1"));
  slots_->sent("n1", "no");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 1 no", "send n2"));
  slots_->sent("n2", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 2 ", "acquired 3 ")) << "one load for both";
}

TEST_F(ManySlotsTest, GivesEachAdapterTheBytesThatItTakes) {
  make({4, 100});
  acquire(1, 1, 60);
  acquire(2, 2, 50);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send n1")) << "there are slots, but not the bytes";
  slots_->sent("n1", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 1 ", "n1 gives way"));
  acquire(3, 3, 10);
  EXPECT_THAT(wishes(), ::testing::IsEmpty()) << "n2 came first";
  end(1, 1);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("n1 stays", "send n2", "send n3"));
  EXPECT_EQ(slots_->used_bytes(), 60u);
  EXPECT_EQ(slots_->used(), 2u);
  EXPECT_EQ(slots_->evictions(), 1u);
}

TEST_F(ManySlotsTest, EmptiesTheSlotsWhoseBytesAreForALargerOne) {
  make({4, 100});
  for (int i = 0; i < 3; ++i) use(static_cast<uint64_t>(i), i, 30);
  wishes();
  acquire(9, 9, 80);
  EXPECT_THAT(wishes(true), ::testing::ElementsAre("clear n0", "clear n1", "clear n2", "send n9"));
  slots_->drop("n1");
  EXPECT_THAT(wishes(true), ::testing::IsEmpty()) << "it is in no slot";
}

TEST_F(ManySlotsTest, HasAsManyGiveWayAsALargeOneNeedsTheBytesOf) {
  make({16, 100});
  for (int i = 0; i < 10; ++i) {
    acquire(static_cast<uint64_t>(i), i);
    slots_->sent(digest(i), "");
  }
  wishes();
  acquire(20, 20, 40);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("n0 gives way", "n1 gives way", "n2 gives way", "n3 gives way"));
  for (int i = 0; i < 3; ++i) end(static_cast<uint64_t>(i), i);
  EXPECT_THAT(wishes(), ::testing::IsEmpty()) << "they are not enough, and nobody is spared";
  end(3, 3);
  const auto lines = wishes(true);
  EXPECT_THAT(lines, ::testing::Contains("send n20"));
  EXPECT_THAT(lines, ::testing::Contains("clear n3"));
}

TEST_F(ManySlotsTest, CountsPerRankAndRoundsRanksUp) {
  make({4, 100, 2});
  auto adapter = std::make_shared<StagedAdapter>();
  adapter->digest = "odd";
  adapter->bytes = 60;
  adapter->max_rank = 12;  // takes 16
  slots_->acquire(SequenceId(1), "odd", adapter);
  EXPECT_EQ(slots_->used_bytes(), 40u);
}

TEST_F(ManySlotsTest, RefusesWhatIsLargerThanTheTier) {
  make({4, 100});
  acquire(1, 1, 101);
  EXPECT_THAT(wishes(), ::testing::ElementsAre(
                            "acquired 1 the adapter takes 101 bytes of the 100 that each rank has for adapters"));
  use(2, 2, 60);
  slots_->keep("n2", true);
  wishes();
  acquire(3, 3, 50);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 3 the adapter takes 50 bytes of the 100 that each rank has "
                                               "for adapters, of which pinned ones take 60"));
}

TEST_F(ManySlotsTest, AnswersOthersWhileAllSlotsArePinned) {
  make({2});
  for (int i : {1, 2}) {
    use(static_cast<uint64_t>(i), i);
    slots_->keep(digest(i), true);
  }
  wishes();
  acquire(3, 3);
  EXPECT_THAT(wishes(), ::testing::IsEmpty()) << "nobody can give way";
  acquire(4, 1);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 4 "));
  slots_->keep("n2", false);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send n3"));
}

TEST_F(ManySlotsTest, KeepsWhatIsUsedOftenThroughAScan) {
  make({8});
  uint64_t id = 0;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 6; ++i) use(++id, i);
  }
  for (int i = 100; i < 300; ++i) use(++id, i);
  int resident = 0;
  for (int i = 0; i < 6; ++i) resident += slots_->is_resident(digest(i));
  EXPECT_GE(resident, 5);
}

TEST_F(AdapterSlotsTest, ForgetsARequestThatIsCancelledWhereverItWaits) {
  make({1, 4, 100});
  tables_->group_formed();
  resolve(1, "a");
  unclaim(1);
  tables_->checked("a", stamp(1));
  tables_->read("a", stamp(1), staged("A"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "cancel a")) << "nobody wants it read";
  claim(2, "a", "A");
  claim(3, "b", "B");
  acquire(2, "A");
  acquire(3, "B");
  wishes();
  release(3, "B");  // while it waits for the slot
  tables_->sent("A", "");
  release(2, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 2 0"));
  unclaim(9);
  release(9, "A");
  release(9, "unknown");
}

}  // namespace
}  // namespace lorikeet::actors
