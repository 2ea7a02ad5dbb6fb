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
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send B to 0"));
  acquire(1, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 1"));
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
