#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/head/adapter_changes_harness.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(AdapterChangesTest, PinsAnAdapterInMemoryAndInItsSlot) {
  make(true, 2, 2, 100);
  form();
  const uint64_t number = begin("pin", "a");
  sent("of /a");
  EXPECT_EQ(answer(number), "'a' is pinned");
  EXPECT_TRUE(row("a").kept);
  const uint64_t second = begin("pin", "b");
  sent("of /b");
  EXPECT_THAT(answer(second), HasSubstr("conflict: 1 adapters are pinned, and of 2 slots"));
  load("c", "/c");
  sent("of /c");
  for (uint64_t id = 1; id < 6; ++id) {  // others take turns in the other slot, and in the memory beside it
    serve(id, id % 2 == 0 ? "b" : "c");
    EXPECT_GE(acquired_.at(id), 0);
    release(id);
    unclaim(id);
    EXPECT_EQ(row("a").host, "staged");
    EXPECT_EQ(slots_->row("of /a").state, "resident");
  }
  EXPECT_EQ(answer(begin("unpin", "a")), "'a' is not pinned");
  EXPECT_FALSE(row("a").kept);
  serve(10, "b");
  serve(11, "c");
  EXPECT_EQ(slots_->row("of /a").state, "none");
}

TEST_F(AdapterChangesTest, KeepsAPinThroughAnEpochsEndAndAReplacement) {
  make();
  form();
  begin("pin", "a");
  sent("of /a");
  lose();
  sends_.clear();
  form();
  EXPECT_THAT(sends_, ElementsAre("of /a"));
  sent("of /a");
  EXPECT_EQ(slots_->row("of /a").state, "resident");
  load("a", "/c", true);
  sent("of /c");
  EXPECT_TRUE(row("a").kept);
  EXPECT_EQ(row("a").digest, "of /c");
  serve(1, "b");
  release(1);
  unclaim(1);
  begin("warm", "b");
  EXPECT_EQ(slots_->row("of /c").state, "resident");
  begin("unload", "a");
  EXPECT_EQ(slots_->row("of /c").state, "none");
  EXPECT_EQ(host_->staged_bytes(), 10u);
}

TEST_F(AdapterChangesTest, LeavesHalfOfTheSlotsBytesToAdaptersThatAreNotPinned) {
  make(true, 8, 8, 1'000, 25);
  EXPECT_EQ(answer(begin("pin", "a")), "'a' is pinned") << "there are no ranks yet, but what it will take is known";
  EXPECT_EQ(answer(begin("pin", "b")),
            "conflict: the pinned adapters and this one would take more than half of the 25 bytes that each rank has "
            "for adapters");
  EXPECT_FALSE(row("b").kept);
  form();
  sent("of /a");
  const uint64_t number = begin("pin", "b");
  sent("of /b");
  EXPECT_THAT(answer(number), HasSubstr("conflict: the pinned adapters and this one"));
  EXPECT_EQ(answer(begin("unpin", "a")), "'a' is not pinned");
  EXPECT_EQ(answer(begin("pin", "b")), "'b' is pinned");
}

TEST_F(AdapterChangesTest, RefusesWhatCannotFitBesideThePinned) {
  make(true, 4, 4, 25);
  begin("pin", "a");
  EXPECT_THAT(answer(begin("pin", "b")),
              HasSubstr("conflict: the 1 pinned adapters and this one would leave too little"));
  disk_["/a"] = "other a";
  version_ = 2;
  resolve(1, "a");  // its files were replaced: the new content is pinned in place of the old one
  EXPECT_EQ(resolved_[1].digest, "other a");
  EXPECT_EQ(host_->staged_bytes(), 10u);
  bytes_ = 20;
  EXPECT_EQ(answer(load("c", "/c")),
            "adapter_failed: the adapter takes 20 bytes of the 25 that staged adapters may take, of which 1 that are "
            "pinned take 10");
  begin("unpin", "a");
  unclaim(1);
  EXPECT_THAT(answer(load("c", "/c")), HasSubstr("Success"));
}

}  // namespace
}  // namespace lorikeet::actors
