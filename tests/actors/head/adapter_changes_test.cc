#include "actors/head/adapter_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "actors/head/adapter_key.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Names = std::vector<std::pair<std::string, std::string>>;

// The tables with the changes around them. The disk answers at once, as the test has written it, unless it is held; the
// ranks answer when the test says so.
class AdapterChangesTest : public ::testing::Test {
 protected:
  void make(bool allowed = true, int32_t slots = 2, int32_t staged_count = 4, uint64_t staged_bytes = 100,
            uint64_t slot_bytes = 0) {
    const Names modules = {{"a", "/a"}, {"b", "/b"}};
    names_ = AdapterNames(modules);
    host_ = std::make_unique<HostAdapters>(HostAdapters::Limits{staged_count, staged_bytes}, modules);
    slots_ = std::make_unique<AdapterSlots>(AdapterSlots::Limits{slots, slot_bytes});
    changes_ = std::make_unique<AdapterChanges>(AdapterChanges::Settings{allowed, "base"}, names_, *host_, *slots_);
    for (const char* dir : {"/a", "/b", "/c", "/d"}) disk_[dir] = std::string("of ") + dir;
  }

  uint64_t begin(const std::string& action, const std::string& name, std::optional<std::string> path = std::nullopt,
                 bool in_place = false) {
    const uint64_t number = changes_->begin({"1", action, name, std::move(path), in_place}, now_);
    act();
    return number;
  }
  uint64_t load(const std::string& name, const std::string& path, bool in_place = false) {
    return begin("load", name, path, in_place);
  }

  // "" while it is under way.
  std::string answer(uint64_t number) {
    const auto it = answers_.find(number);
    if (it == answers_.end()) return "";
    return it->second.code.empty() ? it->second.message : it->second.code + ": " + it->second.message;
  }

  void resolve(uint64_t id, const std::string& name) {
    host_->resolve(SequenceId(id), name);
    act();
  }
  void unclaim(uint64_t id) {
    host_->unclaim(SequenceId(id), AdapterOutcome::none);
    act();
  }
  void acquire(uint64_t id) {
    const std::string& digest = resolved_.at(id).digest;
    slots_->acquire(SequenceId(id), digest, host_->staged(digest));
    act();
  }
  void release(uint64_t id) {
    slots_->release(SequenceId(id), resolved_.at(id).digest);
    act();
  }
  void form() {
    slots_->group_formed();
    changes_->group_formed(now_);
    act();
  }
  void lose() {
    slots_->group_lost();
    act();
  }
  void sent(const std::string& digest, const std::string& error = "", bool ranks_failed = false) {
    slots_->sent(digest, error, ranks_failed);
    act();
  }
  void release_disk() {
    held_ = false;
    for (const auto& read : std::exchange(reads_, {})) perform(read);
    act();
  }
  // Requests of the id that wait for a slot have their leases.
  void serve(uint64_t id, const std::string& name) {
    resolve(id, name);
    acquire(id);
    sent(resolved_.at(id).digest);
  }

  HostAdapters::Row row(const std::string& name) {
    for (auto& r : host_->rows()) {
      if (r.name == name && r.host != "replaced") return r;
    }
    return {};
  }
  size_t replaced() {
    size_t count = 0;
    for (auto& r : host_->rows()) count += r.host == "replaced" ? 1 : 0;
    return count;
  }

  void act() {
    for (;;) {
      auto of_host = host_->take_effects();
      auto of_slots = slots_->take_effects();
      auto of_changes = changes_->take_effects();
      if (of_host.empty() && of_slots.empty() && of_changes.empty()) return;
      for (auto& effect : of_host) std::visit([this](auto& e) { perform(e); }, effect);
      for (auto& effect : of_slots) std::visit([this](auto& e) { perform(e); }, effect);
      for (auto& effect : of_changes) std::visit([this](auto& e) { perform(e); }, effect);
    }
  }

  void perform(const HostAdapters::Check& e) { host_->checked(e.name, stamp(version_), ""); }
  void perform(const HostAdapters::Read& e) {
    if (held_) {
      reads_.push_back(e);
    } else if (const auto found = disk_.find(e.dir); found == disk_.end()) {
      host_->read(e.name, stamp(version_), fail("{}: no lora_B", e.dir));
    } else {
      host_->read(e.name, stamp(version_), staged(found->second, bytes_));
    }
  }
  void perform(const HostAdapters::Cancel&) {}  // it has begun
  void perform(const HostAdapters::Resolved& e) {
    if (e.error.empty()) slots_->claimed(e.digest);
    if (!changes_->resolved(e)) resolved_[e.id.value()] = e;
  }
  void perform(const HostAdapters::Unclaimed& e) { slots_->unclaimed(e.digest); }
  void perform(const HostAdapters::Dropped& e) { slots_->drop(e.digest); }
  void perform(const HostAdapters::Keep& e) { slots_->keep(e.digest, e.kept, host_->staged(e.digest).get()); }
  void perform(const AdapterSlots::Pin& e) { host_->pin(e.digest); }
  void perform(const AdapterSlots::Unpin& e) { host_->unpin(e.digest); }
  void perform(const AdapterSlots::GiveWay&) {}
  void perform(const AdapterSlots::Send& e) { sends_.push_back(e.adapter->digest); }
  void perform(const AdapterSlots::Clear& e) { clears_.push_back(e.digest); }
  void perform(const AdapterSlots::Acquired& e) {
    if (!changes_->acquired(e)) acquired_[e.id.value()] = e.error.empty() ? e.slot.value() : -1;
  }
  void perform(const AdapterChanges::Locate& e) {
    if (gone_.contains(e.path)) {
      changes_->located(e.key, tl::unexpected(AdapterRefusal{"adapter_not_found", e.path + " is gone"}));
    } else if (e.path == "/outside") {
      changes_->located(e.key, tl::unexpected(AdapterRefusal{"forbidden", "/outside is not below /"}));
    } else {
      changes_->located(e.key, e.path);
    }
  }
  void perform(const AdapterChanges::Ended& e) { answers_[e.number] = e; }
  void perform(const AdapterChanges::Remember& e) { remembered_[e.change.name] = e.change; }
  void perform(const AdapterChanges::Forgotten& e) { forgotten_.push_back(e.name + ": " + e.why); }

  // What a head after this one begins with.
  void replace_head() {
    std::vector<NameChange> changes;
    for (const auto& [name, change] : std::exchange(remembered_, {})) {
      if (!change.is_none()) changes.push_back(change);
    }
    make();
    changes_->restore(changes, now_);
    act();
  }

  AdapterNames names_;
  std::unique_ptr<HostAdapters> host_;
  std::unique_ptr<AdapterSlots> slots_;
  std::unique_ptr<AdapterChanges> changes_;
  AdapterChanges::TimePoint now_{};
  std::map<std::string, std::string> disk_;  // directory -> digest
  int64_t version_ = 1;                      // of all files
  uint64_t bytes_ = 10;                      // of an adapter that is read
  bool held_ = false;
  std::vector<HostAdapters::Read> reads_;  // that are held
  std::vector<std::string> sends_, clears_;
  std::map<uint64_t, HostAdapters::Resolved> resolved_;
  std::map<uint64_t, int32_t> acquired_;  // request -> slot
  std::map<uint64_t, AdapterChanges::Ended> answers_;
  std::map<std::string, NameChange> remembered_;
  std::vector<std::string> forgotten_;
  std::set<std::string> gone_;  // directories
};

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
