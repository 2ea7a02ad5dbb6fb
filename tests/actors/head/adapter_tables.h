// The adapters' two tables together, as the adapter cache has them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/adapter_slots.h"
#include "actors/head/host_adapters.h"

namespace lorikeet::actors {

// Passes on what one table wants of the other; what they want of disk, ranks and scheduler is taken by the test.
class AdapterTables {
 public:
  using Effect = std::variant<HostAdapters::Check, HostAdapters::Read, HostAdapters::Cancel, HostAdapters::Resolved,
                              AdapterSlots::Send, AdapterSlots::Clear, AdapterSlots::Acquired>;
  using Id = engine::SequenceId;

  AdapterTables(HostAdapters::Limits limits, AdapterSlots::Limits slots,
                const std::vector<std::pair<std::string, std::string>>& modules)
      : host_(limits, modules), slots_(slots) {}
  AdapterTables(HostAdapters::Limits limits, int32_t slots,
                const std::vector<std::pair<std::string, std::string>>& modules)
      : AdapterTables(limits, AdapterSlots::Limits{slots}, modules) {}

  // Calls one of the tables and does what follows from it.
  template <class Call>
  void host(Call&& call) {
    call(host_);
    act();
  }
  template <class Call>
  void slots(Call&& call) {
    call(slots_);
    act();
  }

  void resolve(Id id, const std::string& name) {
    host([&](auto& table) { table.resolve(id, name); });
  }
  void unclaim(Id id, AdapterOutcome outcome = AdapterOutcome::none) {
    host([&](auto& table) { table.unclaim(id, outcome); });
  }
  void checked(const std::string& name, const FileStamp& found, const std::string& error = "") {
    host([&](auto& table) { table.checked(name, found, error); });
  }
  void read(const std::string& name, const FileStamp& found, Result<std::shared_ptr<const StagedAdapter>> adapter) {
    host([&](auto& table) { table.read(name, found, std::move(adapter)); });
  }
  void cancelled(const std::string& name) {
    host([&](auto& table) { table.cancelled(name); });
  }
  void acquire(Id id, const std::string& digest) {
    slots([&](auto& table) { table.acquire(id, digest, host_.staged(digest)); });
  }
  void release(Id id, const std::string& digest) {
    slots([&](auto& table) { table.release(id, digest); });
  }
  void sent(const std::string& digest, const std::string& error) {
    slots([&](auto& table) { table.sent(digest, error); });
  }
  void group_formed() {
    slots([](auto& table) { table.group_formed(); });
  }
  void group_lost() {
    slots([](auto& table) { table.group_lost(); });
  }

  std::vector<Effect> take_effects() { return std::exchange(effects_, {}); }

  // What the engine is to be told, since the last call.
  std::vector<AdapterSlots::GiveWay> take_ways() { return std::exchange(ways_, {}); }

  struct Row {
    std::string name, digest, host, slot_state, error;
    int32_t slot = -1;
    size_t leases = 0, claims = 0;
  };
  std::vector<Row> rows() const {
    std::vector<Row> rows;
    for (const HostAdapters::Row& host : host_.rows()) {
      const AdapterSlots::Row slot = slots_.row(host.digest);
      rows.push_back({host.name, host.digest, host.host, slot.state, host.error.empty() ? slot.error : host.error,
                      slot.slot, slot.leases, host.claims});
    }
    return rows;
  }
  uint64_t staged_bytes() const { return host_.staged_bytes(); }
  const HostAdapters& host() const { return host_; }
  const AdapterSlots& slots() const { return slots_; }

 private:
  void act() {
    for (;;) {
      auto of_host = host_.take_effects();
      auto of_slots = slots_.take_effects();
      if (of_host.empty() && of_slots.empty()) return;
      for (auto& effect : of_host) std::visit([this](auto& wanted) { perform(wanted); }, effect);
      for (auto& effect : of_slots) std::visit([this](auto& wanted) { perform(wanted); }, effect);
    }
  }

  void perform(HostAdapters::Resolved& resolved) {
    if (resolved.error.empty()) slots_.claimed(resolved.digest);
    effects_.emplace_back(std::move(resolved));
  }
  void perform(HostAdapters::Unclaimed& unclaimed) { slots_.unclaimed(unclaimed.digest); }
  void perform(HostAdapters::Dropped& dropped) { slots_.drop(dropped.digest); }
  void perform(HostAdapters::Keep& keep) { slots_.keep(keep.digest, keep.kept, host_.staged(keep.digest).get()); }
  void perform(AdapterSlots::Pin& pin) { host_.pin(pin.digest); }
  void perform(AdapterSlots::Unpin& unpin) { host_.unpin(unpin.digest); }
  void perform(AdapterSlots::GiveWay& way) { ways_.push_back(std::move(way)); }
  void perform(auto& wanted) { effects_.emplace_back(std::move(wanted)); }

  HostAdapters host_;
  AdapterSlots slots_;
  std::vector<Effect> effects_;
  std::vector<AdapterSlots::GiveWay> ways_;
};

}  // namespace lorikeet::actors
