// A head's tables of adapters with the changes around them, for tests of those.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/head/adapter_changes.h"
#include "actors/head/adapter_key.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {

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
    changes_ = std::make_unique<AdapterChanges>(AdapterChanges::Settings{allowed, {"base"}}, names_, *host_, *slots_);
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
    host_->resolve(engine::SequenceId(id), name);
    act();
  }
  void unclaim(uint64_t id) {
    host_->unclaim(engine::SequenceId(id), AdapterOutcome::none);
    act();
  }
  void acquire(uint64_t id) {
    const std::string& digest = resolved_.at(id).digest;
    slots_->acquire(engine::SequenceId(id), digest, host_->staged(digest));
    act();
  }
  void release(uint64_t id) {
    slots_->release(engine::SequenceId(id), resolved_.at(id).digest);
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

}  // namespace lorikeet::actors
