#include "actors/head/adapter_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using engine::SlotId;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Plays the reader and the ranks: every wish of the table becomes a line, and is granted by the test.
class AdapterTableTest : public ::testing::Test {
 protected:
  void make(AdapterTable::Limits limits) {
    table_ = std::make_unique<AdapterTable>(
        limits, std::vector<std::pair<std::string, std::string>>{{"a", "/a"}, {"b", "/b"}, {"c", "/c"}});
  }

  std::vector<std::string> wishes() {
    std::vector<std::string> lines;
    for (const auto& effect : table_->take_effects())
      lines.push_back(std::visit([](auto& e) { return line(e); }, effect));
    return lines;
  }

  static std::string line(const AdapterTable::Check& e) { return "check " + e.name; }
  static std::string line(const AdapterTable::Read& e) { return "read " + e.name; }
  static std::string line(const AdapterTable::Resolved& e) {
    return "resolved " + std::to_string(e.id.value()) + " " + (e.error.empty() ? e.digest : "error: " + e.error);
  }
  static std::string line(const AdapterTable::Send& e) {
    return "send " + e.adapter->digest + " to " + std::to_string(e.slot);
  }
  static std::string line(const AdapterTable::Clear& e) { return "clear " + std::to_string(e.slot); }
  static std::string line(const AdapterTable::Acquired& e) {
    return "acquired " + std::to_string(e.id.value()) + " " +
           (e.error.empty() ? std::to_string(e.slot.value()) : "error: " + e.error);
  }

  // A request whose adapter is read and found to have this digest.
  void claim(uint64_t id, const std::string& name, const std::string& digest, uint64_t bytes = 10,
             int64_t version = 1) {
    table_->resolve(SequenceId(id), name);
    table_->checked(name, stamp(version));
    table_->read(name, stamp(version), staged(digest, bytes));
  }

  void acquire(uint64_t id, const std::string& digest) { table_->acquire(SequenceId(id), digest); }
  void release(uint64_t id, const std::string& digest) { table_->release(SequenceId(id), digest); }

  AdapterTable::Row row(const std::string& name) {
    for (auto& r : table_->rows()) {
      if (r.name == name && r.host != "replaced") return r;
    }
    return {};
  }

  std::unique_ptr<AdapterTable> table_;
};

TEST_F(AdapterTableTest, ReadsAnAdapterOnceForAllItsRequests) {
  make({2, 4, 100});
  table_->resolve(SequenceId(1), "a");
  table_->resolve(SequenceId(2), "a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a"));
  table_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read a"));
  EXPECT_EQ(row("a").host, "reading");
  table_->read("a", stamp(1), staged("A"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 1 A", "resolved 2 A"));
  table_->resolve(SequenceId(3), "a");
  table_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "resolved 3 A"));
  EXPECT_EQ(row("a").claims, 3u);
}

TEST_F(AdapterTableTest, RefusesAnUnknownName) {
  make({2, 4, 100});
  table_->resolve(SequenceId(1), "z");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 1 error: there is no adapter z"));
}

TEST_F(AdapterTableTest, TellsEveryWaitingRequestWhyAnAdapterCannotBeRead) {
  make({2, 4, 100});
  table_->resolve(SequenceId(1), "a");
  table_->resolve(SequenceId(2), "a");
  table_->checked("a", stamp(1));
  wishes();
  table_->read("a", stamp(1), fail("/a: no lora_B"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 1 error: /a: no lora_B", "resolved 2 error: /a: no lora_B"));
  EXPECT_EQ(row("a").error, "/a: no lora_B");
  claim(3, "a", "A");
  EXPECT_THAT(wishes(), ::testing::Contains("resolved 3 A"));
  EXPECT_EQ(row("a").error, "");
}

TEST_F(AdapterTableTest, GivesASlotWhenAllRanksHaveTheAdapter) {
  make({2, 4, 100});
  claim(1, "a", "A");
  wishes();
  acquire(1, "A");
  EXPECT_THAT(wishes(), IsEmpty()) << "no ranks yet";
  table_->group_formed();
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 0"));
  acquire(2, "A");
  EXPECT_THAT(wishes(), IsEmpty());
  table_->sent("A", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 1 0", "acquired 2 0"));
  acquire(3, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 3 0"));
  EXPECT_EQ(row("a").leases, 3u);
  EXPECT_EQ(row("a").slot_state, "resident");
}

TEST_F(AdapterTableTest, RollsBackEverywhereWhenARankRefuses) {
  make({1, 4, 100});
  table_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  acquire(1, "A");
  acquire(2, "B");
  wishes();
  table_->sent("A", "rank 1: out of memory");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("clear 0", "acquired 1 error: rank 1: out of memory", "send B to 0"));
  EXPECT_EQ(row("a").slot_state, "none");
  EXPECT_EQ(row("a").error, "rank 1: out of memory");
}

TEST_F(AdapterTableTest, EvictsTheLeastRecentlyUsedSlotThatNobodyLeases) {
  make({2, 4, 100});
  table_->group_formed();
  uint64_t id = 0;
  for (const char* name : {"a", "b", "c"}) claim(++id, name, std::string(1, static_cast<char>(name[0] - 32)));
  acquire(1, "A");
  acquire(2, "B");
  table_->sent("A", "");
  table_->sent("B", "");
  wishes();
  acquire(3, "C");
  EXPECT_THAT(wishes(), IsEmpty()) << "all slots are leased";
  release(2, "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send C to 1"));
  table_->sent("C", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 3 1"));
  EXPECT_EQ(row("b").slot_state, "none");
  EXPECT_EQ(row("b").host, "staged");
  EXPECT_EQ(row("a").slot_state, "resident");
}

TEST_F(AdapterTableTest, LetsNoStreamOfRequestsForResidentAdaptersKeepAnotherOneOut) {
  make({1, 4, 100});
  table_->group_formed();
  claim(1, "a", "A");
  acquire(1, "A");
  table_->sent("A", "");
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
    table_->unclaim(SequenceId(id++));
    for (const std::string& line : wishes()) lines.push_back(line);
  }
  EXPECT_THAT(lines, ::testing::Contains("send B to 0"));
  EXPECT_THAT(lines, ::testing::Not(::testing::Contains("acquired 2 0"))) << "it came after B's";
  table_->sent("B", "");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 100 0"));
  release(100, "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 0")) << "whose requests waited meanwhile";
  table_->sent("A", "");
  EXPECT_THAT(wishes(), ::testing::Contains("acquired " + std::to_string(id) + " 0"));
}

TEST_F(AdapterTableTest, DrainsOneResidentAdapterForEachThatWaits) {
  make({2, 4, 100});
  table_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  claim(3, "b", "B");
  claim(4, "c", "C");
  acquire(1, "A");
  acquire(2, "B");
  acquire(3, "B");
  table_->sent("A", "");
  table_->sent("B", "");
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

TEST_F(AdapterTableTest, SparesTheSlotOfAnAdapterThatRequestsWaitFor) {
  make({2, 4, 100});
  table_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  claim(3, "c", "C");
  acquire(1, "A");
  acquire(2, "B");
  table_->sent("A", "");
  table_->sent("B", "");
  release(1, "A");
  release(2, "B");
  table_->unclaim(SequenceId(2));  // nobody wants B any more; A is older, but request 1 still claims it
  wishes();
  acquire(3, "C");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send C to 1"));
}

TEST_F(AdapterTableTest, EvictsHostCopiesUnderTheByteBudgetAndReadsThemAgain) {
  make({2, 4, 25});
  claim(1, "a", "A");
  claim(2, "b", "B");
  table_->unclaim(SequenceId(1));
  wishes();
  claim(3, "c", "C");
  EXPECT_THAT(wishes(), ::testing::Contains("resolved 3 C"));
  EXPECT_EQ(row("a").host, "on_disk");
  EXPECT_EQ(row("b").host, "staged");
  EXPECT_EQ(table_->staged_bytes(), 20u);
  table_->unclaim(SequenceId(2));
  table_->resolve(SequenceId(4), "a");
  table_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
}

TEST_F(AdapterTableTest, EvictsHostCopiesPastTheirNumber) {
  make({2, 1, 100});
  claim(1, "a", "A");
  table_->unclaim(SequenceId(1));
  claim(2, "b", "B");
  EXPECT_EQ(row("a").host, "on_disk");
  EXPECT_EQ(row("b").host, "staged");
}

TEST_F(AdapterTableTest, WaitsForMemoryThatRequestsHold) {
  make({2, 4, 15});
  claim(1, "a", "A");
  wishes();
  claim(2, "b", "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check b", "read b"));
  EXPECT_EQ(row("b").host, "waiting_for_memory");
  table_->unclaim(SequenceId(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read b"));
  table_->read("b", stamp(1), staged("B"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 B"));
}

TEST_F(AdapterTableTest, RefusesAnAdapterThatNeverFits) {
  make({2, 4, 15});
  claim(1, "a", "A", 16);
  const auto lines = wishes();
  EXPECT_THAT(lines.back(), HasSubstr("resolved 1 error: the adapter takes 16 bytes of the 15"));
}

TEST_F(AdapterTableTest, GivesReplacedContentToNewRequestsAndKeepsTheOldForRunningOnes) {
  make({2, 4, 100});
  table_->group_formed();
  claim(1, "a", "A");
  acquire(1, "A");
  table_->sent("A", "");
  wishes();
  table_->resolve(SequenceId(2), "a");
  table_->checked("a", stamp(2));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
  table_->read("a", stamp(2), staged("A2"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 A2"));
  EXPECT_EQ(table_->rows().size(), 4u);
  EXPECT_EQ(table_->rows().back().host, "replaced");
  acquire(2, "A2");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A2 to 1"));
  table_->sent("A2", "");
  release(1, "A");
  table_->unclaim(SequenceId(1));
  EXPECT_EQ(table_->rows().size(), 3u) << "the old content has gone";
  EXPECT_EQ(row("a").digest, "A2");
  EXPECT_EQ(table_->staged_bytes(), 10u);
}

TEST_F(AdapterTableTest, SharesTheContentOfTwoNames) {
  make({2, 4, 100});
  claim(1, "a", "X");
  claim(2, "b", "X");
  EXPECT_EQ(table_->staged_bytes(), 10u);
  table_->unclaim(SequenceId(1));
  table_->unclaim(SequenceId(2));
  claim(3, "b", "Y", 10, 2);
  EXPECT_EQ(row("a").digest, "X") << "a still leads to it";
  EXPECT_EQ(row("a").host, "staged");
}

TEST_F(AdapterTableTest, LooksAgainForReplacedFilesWithoutReadingUnchangedOnes) {
  make({2, 4, 100});
  claim(1, "a", "A");
  wishes();
  table_->recheck_all();
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a"));
  table_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), IsEmpty());
  table_->recheck_all();
  table_->checked("a", stamp(2));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
}

TEST_F(AdapterTableTest, FillsTheSlotsOfANewGroupAgain) {
  make({2, 4, 100});
  table_->group_formed();
  claim(1, "a", "A");
  claim(2, "b", "B");
  acquire(1, "A");
  table_->sent("A", "");
  acquire(2, "B");
  wishes();
  table_->group_lost();
  EXPECT_EQ(row("a").slot_state, "none");
  EXPECT_EQ(row("a").leases, 0u);
  table_->sent("B", "late");
  EXPECT_THAT(wishes(), IsEmpty()) << "of the lost group";
  table_->group_formed();
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send B to 0"));
  acquire(1, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A to 1"));
}

TEST_F(AdapterTableTest, ForgetsARequestThatIsCancelledWhereverItWaits) {
  make({1, 4, 100});
  table_->group_formed();
  table_->resolve(SequenceId(1), "a");
  table_->unclaim(SequenceId(1));
  table_->checked("a", stamp(1));
  table_->read("a", stamp(1), staged("A"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
  claim(2, "a", "A");
  claim(3, "b", "B");
  acquire(2, "A");
  acquire(3, "B");
  wishes();
  release(3, "B");  // while it waits for the slot
  table_->sent("A", "");
  release(2, "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("acquired 2 0"));
  table_->unclaim(SequenceId(9));
  release(9, "A");
  release(9, "unknown");
}

}  // namespace
}  // namespace lorikeet::actors
