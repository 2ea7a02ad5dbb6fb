#include "actors/head/host_adapters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/head/adapter_tables_test.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using HostAdaptersTest = AdapterTablesTest;

TEST_F(HostAdaptersTest, ReadsAnAdapterOnceForAllItsRequests) {
  make({2, 4, 100});
  resolve(1, "a");
  resolve(2, "a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a"));
  tables_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read a"));
  EXPECT_EQ(row("a").host, "reading");
  tables_->read("a", stamp(1), staged("A"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 1 A", "resolved 2 A"));
  resolve(3, "a");
  tables_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "resolved 3 A"));
  EXPECT_EQ(row("a").claims, 3u);
}

TEST_F(HostAdaptersTest, ShowsFewOfManyNamesAtTheCostOfWhatIsInMemoryAndSlots) {
  std::vector<std::pair<std::string, std::string>> modules = {{"same", "/b"}, {"also", "/b"}, {"left", "/c"}};
  for (int i = 0; i < 5000; ++i) modules.emplace_back("n" + std::to_string(i), "/a");
  HostAdapters many({2, 25}, modules);
  uint64_t id = 0;
  for (const auto& [name, digest] : {std::pair("left", "C"), std::pair("same", "B"), std::pair("also", "B")}) {
    many.resolve(SequenceId(++id), name);
    many.checked(name, stamp(1), "");
    many.read(name, stamp(1), staged(digest));
    if (id == 1) many.unclaim(SequenceId(id), AdapterOutcome::none);
  }
  const auto near = many.rows({}, 0);
  ASSERT_EQ(near.size(), 3u) << "what a look goes through";
  EXPECT_EQ(near[0].name, "also");
  EXPECT_EQ(near[0].claims, 2u);
  EXPECT_EQ(near[1].name, "left");
  EXPECT_EQ(near[2].name, "same");
  EXPECT_EQ(near[2].host, "staged");
  many.resolve(SequenceId(9), "n7");
  many.checked("n7", stamp(1), "");
  many.read("n7", stamp(1), staged("A"));
  const auto without = many.rows({}, 0);
  ASSERT_EQ(without.size(), 3u);
  EXPECT_EQ(without[1].name, "n7") << "and left has made room for it";
  EXPECT_EQ(many.rows({"C"}, 0).size(), 4u) << "it may still be in a slot";
  const auto some = many.rows({}, 10);
  EXPECT_GE(some.size(), 10u);
  EXPECT_LE(some.size(), 13u);
  EXPECT_EQ(many.size(), modules.size());
}

TEST_F(HostAdaptersTest, RefusesAnUnknownName) {
  make({2, 4, 100});
  resolve(1, "z");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 1 error: there is no adapter z"));
}

TEST_F(HostAdaptersTest, TellsEveryWaitingRequestWhyAnAdapterCannotBeRead) {
  make({2, 4, 100});
  resolve(1, "a");
  resolve(2, "a");
  tables_->checked("a", stamp(1));
  wishes();
  tables_->read("a", stamp(1), fail("/a: no lora_B"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 1 error: /a: no lora_B", "resolved 2 error: /a: no lora_B"));
  EXPECT_EQ(row("a").error, "/a: no lora_B");
  claim(3, "a", "A");
  EXPECT_THAT(wishes(), ::testing::Contains("resolved 3 A"));
  EXPECT_EQ(row("a").error, "");
}

TEST_F(HostAdaptersTest, EvictsHostCopiesUnderTheByteBudgetAndReadsThemAgain) {
  make({2, 4, 25});
  claim(1, "a", "A");
  claim(2, "b", "B");
  unclaim(1);
  wishes();
  claim(3, "c", "C");
  EXPECT_THAT(wishes(), ::testing::Contains("resolved 3 C"));
  EXPECT_EQ(row("a").host, "on_disk");
  EXPECT_EQ(row("b").host, "staged");
  EXPECT_EQ(tables_->staged_bytes(), 20u);
  unclaim(2);
  resolve(4, "a");
  tables_->checked("a", stamp(1));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
}

TEST_F(HostAdaptersTest, EvictsHostCopiesPastTheirNumber) {
  make({2, 1, 100});
  claim(1, "a", "A");
  unclaim(1);
  claim(2, "b", "B");
  EXPECT_EQ(row("a").host, "on_disk");
  EXPECT_EQ(row("b").host, "staged");
}

TEST_F(HostAdaptersTest, WaitsForMemoryThatRequestsHold) {
  make({2, 4, 15});
  claim(1, "a", "A");
  wishes();
  claim(2, "b", "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check b", "read b"));
  EXPECT_EQ(row("b").host, "waiting_for_memory");
  unclaim(1);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read b"));
  tables_->read("b", stamp(1), staged("B"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 B"));
}

TEST_F(HostAdaptersTest, RefusesAnAdapterThatNeverFits) {
  make({2, 4, 15});
  claim(1, "a", "A", 16);
  const auto lines = wishes();
  EXPECT_THAT(lines.back(), HasSubstr("resolved 1 error: the adapter takes 16 bytes of the 15"));
}

TEST_F(HostAdaptersTest, GivesReplacedContentToNewRequestsAndKeepsTheOldForRunningOnes) {
  make({2, 4, 100});
  tables_->group_formed();
  claim(1, "a", "A");
  acquire(1, "A");
  tables_->sent("A", "");
  wishes();
  resolve(2, "a");
  tables_->checked("a", stamp(2));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
  tables_->read("a", stamp(2), staged("A2"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 A2"));
  EXPECT_EQ(tables_->rows().size(), 4u);
  EXPECT_EQ(tables_->rows().back().host, "replaced");
  acquire(2, "A2");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("send A2 to 1"));
  tables_->sent("A2", "");
  release(1, "A");
  unclaim(1);
  EXPECT_EQ(tables_->rows().size(), 3u) << "the old content has gone";
  EXPECT_EQ(row("a").digest, "A2");
  EXPECT_EQ(tables_->staged_bytes(), 10u);
}

TEST_F(HostAdaptersTest, SharesTheContentOfTwoNames) {
  make({2, 4, 100});
  claim(1, "a", "X");
  claim(2, "b", "X");
  EXPECT_EQ(tables_->staged_bytes(), 10u);
  unclaim(1);
  unclaim(2);
  claim(3, "b", "Y", 10, 2);
  EXPECT_EQ(row("a").digest, "X") << "a still leads to it";
  EXPECT_EQ(row("a").host, "staged");
}

TEST_F(HostAdaptersTest, LooksAgainForReplacedFilesWithoutReadingUnchangedOnes) {
  make({2, 4, 100});
  claim(1, "a", "A");
  unclaim(1);
  wishes();
  resolve(2, "a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a"));
  checked("a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 A"));
  resolve(3, "a");
  checked("a", 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
}

TEST_F(HostAdaptersTest, AnswersNoRequestByALookThatMayBeOlder) {
  make({2, 4, 100});
  claim(1, "a", "A");
  resolve(2, "a");
  wishes();
  resolve(3, "a");  // the files may have been replaced after the look for request 2
  checked("a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 A", "check a"));
  checked("a", 2);
  resolve(4, "a");
  read("a", "A2", 10, 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read a", "resolved 3 A2", "check a"));
  checked("a", 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 4 A2"));
}

TEST_F(HostAdaptersTest, LetsNoStreamOfClaimsKeepAnotherAdapterOutOfTheMemory) {
  make({2, 4, 15});
  claim(1, "a", "A");
  claim(100, "b", "B");  // waits for memory
  wishes();
  resolve(2, "a");
  checked("a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a")) << "A gives way";
  EXPECT_EQ(row("a").host, "waiting_for_memory");
  unclaim(1);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read b"));
  read("b", "B");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 100 B"));
  unclaim(100);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read a")) << "whose requests waited meanwhile";
  read("a", "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 A"));
}

TEST_F(HostAdaptersTest, SparesAnAdapterThatGivesWayWhenNobodyWaitsAnyMore) {
  make({2, 4, 15});
  claim(1, "a", "A");
  claim(2, "b", "B");
  resolve(3, "a");
  checked("a");
  wishes();
  unclaim(2);  // cancelled
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a"));
  checked("a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 3 A"));
  EXPECT_EQ(row("b").host, "on_disk");
}

TEST_F(HostAdaptersTest, ReadsOneWaitingAdapterIntoAFreedPlace) {
  make({2, 4, 15});
  claim(1, "a", "A");
  claim(2, "b", "B");
  claim(3, "c", "C");
  wishes();
  unclaim(1);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read b"));
  EXPECT_EQ(row("c").host, "waiting_for_memory");
  tables_->read("b", stamp(1), fail("/b: cut short"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 error: /b: cut short", "read c"));
}

TEST_F(HostAdaptersTest, KeepsThePlaceOfTheFirstThatWaitsFromSmallerOnes) {
  make({2, 4, 20});
  claim(1, "a", "A", 10);
  claim(2, "b", "B", 20);
  claim(3, "c", "C", 10);  // would fit, again and again
  EXPECT_EQ(row("c").host, "waiting_for_memory");
  wishes();
  unclaim(1);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read b"));
  read("b", "B", 20);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 B"));
  unclaim(2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("read c"));
}

TEST_F(HostAdaptersTest, ReadsNothingForAWaitThatIsCancelled) {
  make({2, 4, 15});
  claim(1, "a", "A");
  claim(2, "b", "B");
  wishes();
  unclaim(2);  // it waited for memory
  unclaim(1);
  EXPECT_THAT(wishes(), IsEmpty());
  resolve(3, "c");
  checked("c");
  unclaim(3);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check c", "read c", "cancel c"));
  tables_->cancelled("c");
  EXPECT_THAT(wishes(), IsEmpty());
  EXPECT_EQ(row("c").host, "on_disk");
}

TEST_F(HostAdaptersTest, TakesAReadingThatHadBegunWhenItWasCancelledWhereItDisturbsNobody) {
  make({2, 4, 15});
  resolve(1, "a");
  checked("a");
  unclaim(1);
  read("a", "A");
  EXPECT_EQ(row("a").host, "staged");
  resolve(2, "b");
  checked("b");
  unclaim(2);
  read("b", "B");
  EXPECT_EQ(row("b").host, "on_disk");
  EXPECT_EQ(row("a").host, "staged");
  wishes();
  resolve(3, "c");
  checked("c");
  unclaim(3);
  resolve(4, "c");  // while it is read
  read("c", "C", 5);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check c", "read c", "cancel c", "check c"));
  checked("c");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 4 C"));
}

TEST_F(HostAdaptersTest, TellsWaitingRequestsWhyTheFilesCannotBeLookedAt) {
  make({2, 4, 100});
  claim(1, "a", "A");
  resolve(2, "a");
  wishes();
  tables_->checked("a", {}, "/a: no answer");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 error: /a: no answer"));
  EXPECT_EQ(row("a").error, "/a: no answer");
  EXPECT_EQ(row("a").host, "staged") << "requests that run have it";
}

TEST_F(HostAdaptersTest, ServesWhatIsInMemoryAfterItsFilesAreGoneUntilThereAreOthers) {
  make({2, 4, 100});
  claim(1, "a", "A");
  unclaim(1);
  wishes();
  resolve(2, "a");
  tables_->checked("a", FileStamp{});
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "resolved 2 A"));
  EXPECT_THAT(row("a").error, HasSubstr("/a: its files are gone; what they held is served from memory"));
  resolve(3, "a");
  FileStamp half = stamp(2);
  half.config = FileStamp{}.config;  // of the others one is there
  tables_->checked("a", half);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "resolved 3 A"));
  resolve(4, "a");
  tables_->checked("a", stamp(1));  // back, unchanged
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "resolved 4 A"));
  EXPECT_EQ(row("a").error, "");
  claim(5, "a", "B", 10, 2);
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a", "resolved 5 B"));
  EXPECT_EQ(row("a").error, "");
}

TEST_F(HostAdaptersTest, SaysThatFilesAreGoneWhereNothingOfThemIsInMemory) {
  make({2, 1, 100});
  claim(1, "a", "A");
  unclaim(1);
  claim(2, "b", "B");
  unclaim(2);
  wishes();
  ASSERT_EQ(row("a").host, "on_disk");
  resolve(3, "a");
  tables_->checked("a", FileStamp{});
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
  tables_->read("a", FileStamp{}, fail("/a/adapter_config.json: no such file"));
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 3 error: /a/adapter_config.json: no such file"));
}

TEST_F(HostAdaptersTest, ReadsFilesAgainThatWereWrittenShortlyBeforeTheyWereRead) {
  make({2, 4, 100});
  FileStamp young = stamp(1);
  young.settled = false;
  resolve(1, "a");
  tables_->checked("a", young);
  tables_->read("a", young, staged("A"));
  wishes();
  resolve(2, "a");
  checked("a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "read a"));
  read("a", "A");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("resolved 2 A"));
  resolve(3, "a");
  checked("a");
  EXPECT_THAT(wishes(), ::testing::ElementsAre("check a", "resolved 3 A"));
}

TEST_F(HostAdaptersTest, SetsAContentAsideAfterThreeRequestsInARowWithoutAToken) {
  make({2, 4, 100});
  const auto end = [&](uint64_t id, AdapterOutcome outcome) {
    claim(id, "a", "A");
    tables_->unclaim(SequenceId(id), outcome);
  };
  end(1, AdapterOutcome::no_token);
  end(2, AdapterOutcome::no_token);
  end(3, AdapterOutcome::success);
  end(4, AdapterOutcome::no_token);
  end(5, AdapterOutcome::none);
  end(6, AdapterOutcome::no_token);
  claim(7, "a", "A");
  EXPECT_THAT(wishes(), ::testing::Contains("resolved 7 A"));
  EXPECT_EQ(row("a").error, "");
  end(8, AdapterOutcome::no_token);
  EXPECT_THAT(row("a").error, HasSubstr("/a: set aside, since 3 requests in a row"));
  tables_->unclaim(SequenceId(7), AdapterOutcome::success);
  wishes();
  resolve(9, "a");
  checked("a");
  const auto lines = wishes();
  ASSERT_EQ(lines.size(), 2u) << "nothing is read";
  EXPECT_THAT(lines[1], HasSubstr("resolved 9 error: /a: set aside"));
  EXPECT_EQ(row("a").claims, 0u);
}

TEST_F(HostAdaptersTest, ServesReplacedFilesOfAContentThatWasSetAside) {
  make({2, 4, 10});
  for (uint64_t id : {1, 2, 3}) {
    claim(id, "a", "A");
    tables_->unclaim(SequenceId(id), AdapterOutcome::no_token);
  }
  claim(4, "b", "B");
  unclaim(4);
  EXPECT_EQ(row("a").host, "on_disk");
  wishes();
  resolve(5, "a");
  checked("a");
  EXPECT_THAT(wishes().back(), HasSubstr("resolved 5 error: /a: set aside")) << "though it is not in memory";
  resolve(6, "a");
  checked("a", 2);
  read("a", "A", 10, 2);  // written again, the same
  EXPECT_THAT(wishes().back(), HasSubstr("resolved 6 error: /a: set aside"));
  resolve(7, "a");
  checked("a", 3);
  read("a", "A3", 10, 3);
  EXPECT_EQ(wishes().back(), "resolved 7 A3");
  EXPECT_EQ(row("a").error, "");
}

}  // namespace
}  // namespace lorikeet::actors
