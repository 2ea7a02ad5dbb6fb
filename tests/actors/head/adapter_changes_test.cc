#include "actors/head/adapter_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/head/adapter_changes_harness.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(AdapterChangesTest, LoadsAnAdapterOntoTheRanksBeforeItsNameIsThere) {
  make();
  form();
  const uint64_t number = load("c", "/c");
  EXPECT_THAT(sends_, ElementsAre("of /c"));
  EXPECT_EQ(answer(number), "");
  EXPECT_FALSE(names_.contains("c"));
  resolve(1, "c");
  EXPECT_TRUE(resolved_[1].unknown);
  sent("of /c");
  EXPECT_EQ(answer(number), "Success: LoRA adapter 'c' added successfully.");
  EXPECT_EQ(names_.directory_of("c"), "/c");
  EXPECT_EQ(row("c").host, "staged");
  EXPECT_EQ(row("c").claims, 0u);
  EXPECT_EQ(slots_->row("of /c").leases, 0u);
  resolve(2, "c");
  EXPECT_EQ(resolved_[2].digest, "of /c");
}

TEST_F(AdapterChangesTest, LoadsWithoutTheRanksWhereTheyAreNotThereOrAllSlotsAreLeased) {
  make(true, 1);
  EXPECT_THAT(answer(load("c", "/c")), HasSubstr("Success"));
  form();
  serve(1, "a");
  EXPECT_THAT(answer(load("d", "/d")), HasSubstr("Success"));
  EXPECT_THAT(sends_, ElementsAre("of /a"));
  release(1);
  unclaim(1);
  serve(2, "d");
  EXPECT_EQ(acquired_[2], 0);
}

TEST_F(AdapterChangesTest, RefusesALoadAsVllmDoesAndOneThatIsNotAllowed) {
  make();
  EXPECT_EQ(answer(load("a", "/c")),
            "invalid_request: The lora adapter 'a' has already been loaded. If you want to load the adapter in place, "
            "set 'load_inplace' to True.");
  EXPECT_EQ(answer(load("base", "/c", true)), "invalid_request: 'base' is the name of the base model");
  EXPECT_EQ(answer(load("c", "/outside")), "forbidden: /outside is not below /");
  EXPECT_EQ(names_.size(), 2u);
  make(false);
  for (const char* action : {"load", "unload", "pin", "unpin"}) {
    EXPECT_THAT(answer(begin(action, "a", std::string("/c"))), HasSubstr("forbidden: adapters are not changed"))
        << action;
  }
  EXPECT_TRUE(names_.contains("a"));
}

TEST_F(AdapterChangesTest, RefusesABadAdapterAndChangesNothing) {
  make();
  form();
  serve(1, "a");
  EXPECT_EQ(answer(load("c", "/nothing")), "adapter_failed: /nothing: no lora_B");
  EXPECT_EQ(answer(load("a", "/nothing", true)), "adapter_failed: /nothing: no lora_B");
  const uint64_t refused = load("a", "/c", true);
  sent("of /c", "rank 1: no memory");
  EXPECT_EQ(answer(refused), "adapter_failed: rank 1: no memory");
  EXPECT_THAT(clears_, ElementsAre("of /c"));
  const uint64_t unheard = load("c", "/c");
  sent("of /c", "the ranks do not answer", true);
  EXPECT_EQ(answer(unheard), "rank_lost: the ranks do not answer");
  EXPECT_EQ(names_.directory_of("a"), "/a");
  resolve(2, "a");
  EXPECT_EQ(resolved_[2].digest, "of /a");
  EXPECT_EQ(replaced(), 0u);
  EXPECT_EQ(host_->staged_bytes(), 10u);  // what was read in vain is gone
}

TEST_F(AdapterChangesTest, LeavesTheOldContentToWhatRunsAndGivesTheNewOneToWhatComes) {
  make();
  form();
  serve(1, "a");
  const uint64_t number = load("a", "/c", true);
  resolve(2, "a");  // before it has entered
  EXPECT_EQ(resolved_[2].digest, "of /a");
  sent("of /c");
  EXPECT_THAT(answer(number), HasSubstr("Success"));
  resolve(3, "a");
  EXPECT_EQ(resolved_[3].digest, "of /c");
  EXPECT_EQ(slots_->row("of /a").leases, 1u);
  EXPECT_EQ(replaced(), 1u);
  release(1);
  unclaim(1);
  unclaim(2);
  EXPECT_EQ(replaced(), 0u);
  EXPECT_EQ(slots_->row("of /a").state, "none");
}

TEST_F(AdapterChangesTest, UnloadsAtOnceAndServesThoseWhoHadCome) {
  make();
  form();
  serve(1, "a");
  held_ = true;
  resolve(2, "b");  // it is being read
  EXPECT_EQ(answer(begin("unload", "a")), "Success: LoRA adapter 'a' removed successfully.");
  EXPECT_THAT(answer(begin("unload", "b")), HasSubstr("Success"));
  EXPECT_EQ(names_.size(), 0u);
  resolve(3, "a");
  EXPECT_TRUE(resolved_[3].unknown);
  EXPECT_EQ(slots_->row("of /a").leases, 1u);
  release_disk();
  EXPECT_EQ(resolved_[2].digest, "of /b");
  release(1);
  unclaim(1);
  unclaim(2);
  EXPECT_THAT(host_->rows(), IsEmpty());
  EXPECT_EQ(host_->staged_bytes(), 0u);
  EXPECT_EQ(answer(begin("unload", "a")), "unknown_adapter: The lora adapter 'a' cannot be found.");
}

TEST_F(AdapterChangesTest, TakesNoOldReadingForNewsOfANameThatWasLoadedAgain) {
  make();
  held_ = true;
  resolve(1, "a");
  const auto old = reads_;
  begin("unload", "a");
  reads_.clear();
  const uint64_t number = load("a", "/c");
  release_disk();
  EXPECT_THAT(answer(number), HasSubstr("Success"));
  for (const auto& read : old) perform(read);
  act();
  EXPECT_EQ(resolved_[1].digest, "of /a");
  resolve(2, "a");
  EXPECT_EQ(resolved_[2].digest, "of /c");
}

TEST_F(AdapterChangesTest, LoadsANameOnceAtATimeAndOnlySoManyAtOnce) {
  make(true, 2, 4, 1000);
  held_ = true;
  const uint64_t first = load("c", "/c");
  EXPECT_EQ(answer(load("c", "/d")), "conflict: 'c' is being loaded already");
  for (size_t i = 1; i < AdapterChanges::kMostAtOnce; ++i) load("c" + std::to_string(i), "/c");
  EXPECT_THAT(answer(load("d", "/d")), HasSubstr("queue_full: 64 changes of adapters are under way"));
  release_disk();
  EXPECT_THAT(answer(first), HasSubstr("Success"));
  EXPECT_THAT(answer(load("d", "/d")), HasSubstr("Success"));
}

TEST_F(AdapterChangesTest, GivesUpWhatTakesTooLong) {
  make();
  form();
  held_ = true;
  const uint64_t reading = load("c", "/c");
  now_ += std::chrono::seconds(121);
  changes_->tick(now_);
  act();
  EXPECT_EQ(answer(reading), "timed_out: it was not done within 120 s");
  release_disk();
  EXPECT_FALSE(names_.contains("c"));
  EXPECT_EQ(host_->staged_bytes(), 0u);
  const uint64_t sending = load("c", "/c");
  now_ += std::chrono::seconds(121);
  changes_->tick(now_);
  act();
  EXPECT_THAT(answer(sending), HasSubstr("timed_out"));
  sent("of /c");
  EXPECT_EQ(slots_->row("of /c").leases, 0u);
  EXPECT_FALSE(names_.contains("c"));
}

TEST_F(AdapterChangesTest, WarmsAnAdapterUpAsARequestDoes) {
  make(false);
  form();
  const uint64_t number = begin("warm", "a");
  EXPECT_EQ(answer(number), "");
  sent("of /a");
  EXPECT_EQ(answer(number), "'a' is on all ranks");
  EXPECT_EQ(slots_->row("of /a").state, "resident");
  EXPECT_EQ(slots_->row("of /a").leases, 0u);
  EXPECT_EQ(answer(begin("warm", "z")), "unknown_adapter: The lora adapter 'z' cannot be found.");
}

TEST_F(AdapterChangesTest, GivesTheNextHeadTheNamesThatHaveChanged) {
  make();
  load("c", "/c");
  begin("unload", "a");
  begin("unload", "b");
  load("b", "/d");  // a name of the start that leads elsewhere
  begin("pin", "c");
  load("x", "/d");
  begin("unload", "x");
  replace_head();
  EXPECT_FALSE(names_.contains("a"));
  EXPECT_FALSE(names_.contains("x"));
  EXPECT_EQ(names_.directory_of("b"), "/d");
  EXPECT_EQ(names_.directory_of("c"), "/c");
  resolve(1, "a");
  EXPECT_TRUE(resolved_[1].unknown);
  resolve(2, "b");
  EXPECT_EQ(resolved_[2].digest, "of /d");
  EXPECT_TRUE(row("c").kept);
  EXPECT_THAT(forgotten_, IsEmpty());
  form();
  EXPECT_THAT(sends_, ElementsAre("of /c")) << "what is pinned goes back into its slot";

  begin("unload", "b");
  begin("unpin", "c");
  replace_head();
  EXPECT_FALSE(names_.contains("b")) << "the directory of the start does not come back";
  EXPECT_FALSE(row("c").kept);
  EXPECT_TRUE(names_.contains("c"));
}

TEST_F(AdapterChangesTest, KeepsAPinOfANameOfTheStartForTheNextHead) {
  make();
  begin("pin", "a");
  EXPECT_EQ(remembered_.at("a").directory, std::nullopt) << "its directory is the command line's";
  replace_head();
  EXPECT_TRUE(row("a").kept);
  EXPECT_EQ(names_.directory_of("a"), "/a");
}

TEST_F(AdapterChangesTest, LetsARememberedNameGoWhoseFilesAreGone) {
  make();
  load("c", "/c");
  load("d", "/d");
  gone_ = {"/c"};
  replace_head();
  EXPECT_THAT(forgotten_, ElementsAre("c: /c is gone"));
  EXPECT_FALSE(names_.contains("c"));
  EXPECT_TRUE(names_.contains("d"));
  EXPECT_TRUE(remembered_.at("c").is_none());
  resolve(1, "c");
  EXPECT_TRUE(resolved_[1].unknown);
}

}  // namespace
}  // namespace lorikeet::actors
