#include "actors/head/adapter_table.h"

#include <glog/logging.h>

#include <algorithm>
#include <tuple>

namespace lorikeet::actors {

AdapterTable::AdapterTable(Limits limits, const std::vector<std::pair<std::string, std::string>>& modules)
    : limits_(limits), slots_(static_cast<size_t>(limits.slots)) {
  for (const auto& [name, dir] : modules) names_[name].dir = dir;
}

// ---- names and host copies

void AdapterTable::resolve(Id id, const std::string& name) {
  const auto it = names_.find(name);
  if (it == names_.end()) {
    effects_.push_back(Resolved{id, "", "there is no adapter " + name});
    return;
  }
  Name& entry = it->second;
  entry.waiters.push_back(id);
  if (entry.work != HostWork::none) return;
  entry.work = HostWork::checking;
  effects_.push_back(Check{name, entry.dir});
}

void AdapterTable::recheck_all() {
  for (auto& [name, entry] : names_) {
    if (entry.work != HostWork::none || entry.digest.empty()) continue;
    entry.work = HostWork::checking;
    effects_.push_back(Check{name, entry.dir});
  }
}

void AdapterTable::checked(const std::string& name, const FileStamp& stamp) {
  Name& entry = names_.at(name);
  if (entry.work != HostWork::checking) return;
  const auto content = contents_.find(entry.digest);
  const bool known = content != contents_.end() && content->second.staged != nullptr && entry.stamp == stamp;
  // Nobody waits after a recheck: unchanged files need not come into memory for that.
  if (known || (entry.waiters.empty() && entry.stamp == stamp)) {
    entry.work = HostWork::none;
    resolve_waiters(entry, "");
    return;
  }
  start_read(name, entry);
}

void AdapterTable::start_read(const std::string& name, Name& entry) {
  entry.work = HostWork::reading;
  effects_.push_back(Read{name, entry.dir});
}

void AdapterTable::read(const std::string& name, const FileStamp& stamp,
                        Result<std::shared_ptr<const StagedAdapter>> adapter) {
  Name& entry = names_.at(name);
  if (entry.work != HostWork::reading) return;
  entry.work = HostWork::none;
  if (!adapter) {
    entry.error = adapter.error().message;
    resolve_waiters(entry, entry.error);
    return;
  }
  const uint64_t bytes = (*adapter)->bytes;
  if (bytes > limits_.staged_bytes) {
    entry.error = "the adapter takes " + std::to_string(bytes) + " bytes of the " +
                  std::to_string(limits_.staged_bytes) + " that staged adapters may take";
    resolve_waiters(entry, entry.error);
    return;
  }
  const std::string digest = (*adapter)->digest;
  if (const auto known = contents_.find(digest); known == contents_.end() || known->second.staged == nullptr) {
    if (!make_room(bytes, digest)) {
      entry.work = HostWork::waiting_for_memory;  // this copy is dropped; it is read again when there is room
      entry.needed_bytes = bytes;
      return;
    }
    Content& content = contents_[digest];
    content.staged = *std::move(adapter);
    content.bytes = bytes;
    content.max_rank = content.staged->max_rank;
    staged_bytes_ += bytes;
    ++staged_count_;
  }
  Content& content = contents_[digest];
  content.name = name;
  content.dir = entry.dir;
  content.last_used = ++clock_;
  entry.error.clear();
  entry.stamp = stamp;
  const std::string before = std::exchange(entry.digest, digest);
  resolve_waiters(entry, "");
  if (before != digest) drop_if_stale(before);
  assign_slots();
  retry_reads();
}

void AdapterTable::resolve_waiters(Name& entry, const std::string& error) {
  for (const Id id : std::exchange(entry.waiters, {})) {
    if (error.empty()) claim(contents_.at(entry.digest), id);
    effects_.push_back(Resolved{id, error.empty() ? entry.digest : "", error});
  }
}

void AdapterTable::claim(Content& content, Id id) {
  CHECK(content.staged != nullptr);
  content.claims.insert(id);
  content.last_used = ++clock_;
  claims_[id] = content.staged->digest;
}

void AdapterTable::unclaim(Id id) {
  for (auto& [name, entry] : names_) std::erase(entry.waiters, id);
  const auto it = claims_.find(id);
  if (it == claims_.end()) return;
  const std::string digest = it->second;
  claims_.erase(it);
  contents_.at(digest).claims.erase(id);
  drop_if_stale(digest);
  retry_reads();
}

// Evicts host copies that nobody holds, least recently used first, until `bytes` more fit.
bool AdapterTable::make_room(uint64_t bytes, const std::string& keep) {
  while (staged_bytes_ + bytes > limits_.staged_bytes || staged_count_ >= limits_.staged_count) {
    Content* oldest = nullptr;
    for (auto& [digest, content] : contents_) {
      if (content.staged == nullptr || content.held() || content.state == SlotState::sending || digest == keep)
        continue;
      if (oldest == nullptr || content.last_used < oldest->last_used) oldest = &content;
    }
    if (oldest == nullptr) return false;
    unstage(*oldest);
  }
  return true;
}

void AdapterTable::unstage(Content& content) {
  staged_bytes_ -= content.bytes;
  --staged_count_;
  content.staged = nullptr;
}

void AdapterTable::retry_reads() {
  for (auto& [name, entry] : names_) {
    if (entry.work != HostWork::waiting_for_memory) continue;
    if (entry.waiters.empty()) {
      entry.work = HostWork::none;
    } else if (make_room(entry.needed_bytes, "")) {
      start_read(name, entry);
    }
  }
}

bool AdapterTable::is_current(const std::string& digest) const {
  return std::any_of(names_.begin(), names_.end(), [&](const auto& name) { return name.second.digest == digest; });
}

// Content that no name leads to any more goes as soon as nobody holds it.
void AdapterTable::drop_if_stale(const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return;
  Content& content = it->second;
  if (content.held() || content.state == SlotState::sending || is_current(digest)) return;
  if (content.slot >= 0) slots_[static_cast<size_t>(content.slot)].clear();
  if (content.staged != nullptr) unstage(content);
  contents_.erase(it);
  assign_slots();
}

// ---- slots

void AdapterTable::acquire(Id id, const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end()) {
    effects_.push_back(Acquired{id, engine::kBaseSlot, "the adapter's content is not here any more"});
    return;
  }
  Content& content = it->second;
  content.last_used = ++clock_;
  content.waiters.insert(id);
  if (content.state == SlotState::resident && !content.draining) {
    grant(content);
  } else if (content.state == SlotState::none) {
    content.state = SlotState::waiting;
    slot_queue_.push_back(digest);
    assign_slots();
  }
}

void AdapterTable::release(Id id, const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return;
  Content& content = it->second;
  content.leases.erase(id);
  content.waiters.erase(id);
  if (content.waiters.empty() && content.state == SlotState::waiting) {
    content.state = SlotState::none;
    std::erase(slot_queue_, digest);
  }
  drop_if_stale(digest);
  assign_slots();
  retry_reads();
}

void AdapterTable::assign_slots() {
  while (group_ && !slot_queue_.empty()) {
    const std::string digest = slot_queue_.front();
    Content& content = contents_.at(digest);
    CHECK(content.state == SlotState::waiting);
    if (content.staged == nullptr) {  // its host copy went while it was resident, and then the ranks did
      slot_queue_.pop_front();
      content.state = SlotState::none;
      for (const Id id : std::exchange(content.waiters, {})) {
        effects_.push_back(Acquired{id, engine::kBaseSlot, "the adapter's content is not in memory any more"});
      }
      continue;
    }
    const int32_t slot = free_slot();
    if (slot < 0) break;
    slot_queue_.pop_front();
    slots_[static_cast<size_t>(slot)] = digest;
    content.slot = slot;
    content.state = SlotState::sending;
    content.transfer = ++transfers_;
    effects_.push_back(Send{content.transfer, slot, content.staged});
  }
  choose_draining();
}

// Every content that waits has a resident one that drains for it, as far as there are any: the one with the fewest
// leases, since it is done the soonest. Who is spared after all goes on.
void AdapterTable::choose_draining() {
  for (;;) {
    size_t num_draining = 0;
    Content* next = nullptr;   // to drain
    Content* spare = nullptr;  // to drain no more
    const auto key = [](const Content& c) { return std::tuple(c.leases.size(), c.claims.size(), c.last_used); };
    for (const std::string& digest : slots_) {
      if (digest.empty()) continue;
      Content& content = contents_.at(digest);
      if (content.draining) {
        ++num_draining;
        if (spare == nullptr || key(*spare) < key(content)) spare = &content;
      } else if (content.state == SlotState::resident) {
        if (next == nullptr || key(content) < key(*next)) next = &content;
      }
    }
    if (num_draining < slot_queue_.size() && next != nullptr) {
      next->draining = true;
    } else if (num_draining > slot_queue_.size()) {
      spare->draining = false;
      grant(*spare);
    } else {
      return;
    }
  }
}

void AdapterTable::grant(Content& content) {
  for (const Id id : std::exchange(content.waiters, {})) {
    content.leases.insert(id);
    effects_.push_back(Acquired{id, engine::SlotId(content.slot), ""});
  }
}

// An empty slot, or one whose adapter nobody leases: first of those that no request waits for, least recently used
// first. -1: all are leased or on their way.
int32_t AdapterTable::free_slot() {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].empty()) return static_cast<int32_t>(slot);
  }
  Content* best = nullptr;
  std::string digest;
  for (const std::string& in_slot : slots_) {
    Content& content = contents_.at(in_slot);
    if (content.state != SlotState::resident || !content.leases.empty()) continue;
    const auto key = [](const Content& c) { return std::pair(!c.claims.empty(), c.last_used); };
    if (best != nullptr && key(*best) < key(content)) continue;
    best = &content;
    digest = in_slot;
  }
  if (best == nullptr) return -1;
  best->draining = false;
  best->state = SlotState::none;
  if (!best->waiters.empty()) {  // who came while it drained: at the end of the queue
    best->state = SlotState::waiting;
    slot_queue_.push_back(digest);
  }
  return std::exchange(best->slot, -1);
}

void AdapterTable::sent(const std::string& digest, const std::string& error) {
  const auto it = contents_.find(digest);
  if (it == contents_.end() || it->second.state != SlotState::sending) return;
  Content& content = it->second;
  content.error = error;
  if (error.empty()) {
    content.state = SlotState::resident;
    grant(content);
  } else {
    effects_.push_back(Clear{content.transfer, content.slot, digest});
    slots_[static_cast<size_t>(content.slot)].clear();
    content.state = SlotState::none;
    content.slot = -1;
    for (const Id id : std::exchange(content.waiters, {})) {
      effects_.push_back(Acquired{id, engine::kBaseSlot, error});
    }
  }
  drop_if_stale(digest);
  assign_slots();
  retry_reads();
}

void AdapterTable::group_formed() {
  group_ = true;
  assign_slots();
}

void AdapterTable::group_lost() {
  group_ = false;
  std::fill(slots_.begin(), slots_.end(), std::string());
  std::vector<std::string> digests;
  for (auto& [digest, content] : contents_) {
    digests.push_back(digest);
    content.leases.clear();  // the engine forgets the sequences that held them
    content.slot = -1;
    content.draining = false;
    if (content.state == SlotState::waiting) continue;
    content.state = SlotState::none;
    if (content.waiters.empty()) continue;
    content.state = SlotState::waiting;
    slot_queue_.push_back(digest);
  }
  for (const std::string& digest : digests) drop_if_stale(digest);
  retry_reads();
}

std::vector<AdapterTable::Row> AdapterTable::rows() const {
  constexpr const char* kSlotStates[] = {"none", "waiting", "sending", "resident"};
  std::vector<Row> rows;
  const auto add_content = [&](Row& row, const std::string& digest, const Content& content) {
    row.digest = digest;
    row.host = content.staged != nullptr ? "staged" : "on_disk";
    row.slot_state = kSlotStates[static_cast<size_t>(content.state)];
    row.slot = content.slot;
    row.max_rank = content.max_rank;
    row.leases = content.leases.size();
    row.claims = content.claims.size();
    row.bytes = content.bytes;
    row.error = content.error;
  };
  for (const auto& [name, entry] : names_) {
    Row row;
    row.name = name;
    row.dir = entry.dir;
    row.host = "on_disk";
    row.slot_state = "none";
    if (const auto it = contents_.find(entry.digest); it != contents_.end()) add_content(row, it->first, it->second);
    if (entry.work == HostWork::reading) row.host = "reading";
    if (entry.work == HostWork::waiting_for_memory) row.host = "waiting_for_memory";
    if (!entry.error.empty()) row.error = entry.error;
    rows.push_back(std::move(row));
  }
  for (const auto& [digest, content] : contents_) {  // replaced, and still held
    if (is_current(digest)) continue;
    Row row;
    row.name = content.name;
    row.dir = content.dir;
    add_content(row, digest, content);
    row.host = "replaced";
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace lorikeet::actors
