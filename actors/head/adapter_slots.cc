#include "actors/head/adapter_slots.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::actors {

AdapterSlots::AdapterSlots(int32_t slots) : num_slots_(slots) {
  for (int32_t slot = 0; slot < slots; ++slot) free_slots_.insert(slot);
}

void AdapterSlots::claimed(const std::string& digest) {
  Content& content = find_or_add(digest);
  ++content.claims;
  content.last_used = ++clock_;
  update(content);
}

void AdapterSlots::unclaimed(const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end() || it->second.claims == 0) return;
  --it->second.claims;
  update(it->second);
}

void AdapterSlots::acquire(Id id, const std::string& digest, std::shared_ptr<const StagedAdapter> staged) {
  const auto it = contents_.find(digest);
  if (staged == nullptr && (it == contents_.end() || it->second.state == State::none)) {
    effects_.push_back(Acquired{id, engine::kBaseSlot, "the adapter's content is not here any more"});
    return;
  }
  Content& content = it != contents_.end() ? it->second : find_or_add(digest);
  content.last_used = ++clock_;
  content.waiters.insert(id);
  if (staged != nullptr) content.staged = std::move(staged);
  if (content.state == State::resident && !content.draining) {
    grant(content);
  } else if (content.state == State::none) {
    queue(content);
  }
  update(content);
  assign_slots();
}

void AdapterSlots::release(Id id, const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return;
  Content& content = it->second;
  content.leases.erase(id);
  content.waiters.erase(id);
  if (content.waiters.empty() && content.state == State::waiting) {
    queue_.erase(content.ticket);
    content.state = State::none;
  }
  update(content);
  assign_slots();
}

void AdapterSlots::drop(const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return;
  Content& content = it->second;
  content.error.clear();
  if (content.state == State::resident && content.leases.empty() && content.waiters.empty()) {
    free_slots_.insert(content.slot);
    content.slot = -1;
    content.draining = false;
    content.state = State::none;
  }
  update(content);
  assign_slots();
}

void AdapterSlots::keep(const std::string& digest, bool kept) {
  if (!kept && !contents_.contains(digest)) return;
  Content& content = find_or_add(digest);
  content.kept = kept;
  if (kept && content.draining) {
    content.draining = false;
    grant(content);
  }
  update(content);
  assign_slots();
}

std::vector<std::string> AdapterSlots::resident() const {
  std::vector<std::string> digests;
  for (const Index* index : {&resident_, &draining_}) {
    for (const Key& key : *index) digests.push_back(*std::get<Content*>(key)->digest);
  }
  return digests;
}

bool AdapterSlots::is_resident(const std::string& digest) const {
  const auto it = contents_.find(digest);
  return it != contents_.end() && it->second.state == State::resident;
}

bool AdapterSlots::has_slot_for(const std::string& digest) const {
  if (!group_) return false;
  const auto it = contents_.find(digest);
  const State state = it == contents_.end() ? State::none : it->second.state;
  if (state == State::resident) return !it->second.draining;
  if (state != State::none) return state == State::sending;
  const auto idle = [](const Index& index) { return !index.empty() && std::get<0>(*index.begin()) == 0; };
  return queue_.empty() && (!free_slots_.empty() || idle(resident_) || idle(draining_));
}

AdapterSlots::Content& AdapterSlots::find_or_add(const std::string& digest) {
  const auto it = contents_.try_emplace(digest).first;
  it->second.digest = &it->first;
  return it->second;
}

void AdapterSlots::queue(Content& content) {
  content.state = State::waiting;
  content.ticket = ++tickets_;
  queue_.emplace(content.ticket, &content);
}

void AdapterSlots::assign_slots() {
  while (group_ && !queue_.empty()) {
    Content& content = *queue_.begin()->second;
    CHECK(content.state == State::waiting);
    if (content.staged == nullptr) {  // its host copy went while it was resident, and then it lost its slot
      queue_.erase(queue_.begin());
      content.state = State::none;
      fail_waiters(content, "the adapter's content is not in memory any more", false);
      update(content);
      continue;
    }
    const int32_t slot = free_slot();
    if (slot < 0) break;
    queue_.erase(content.ticket);
    content.slot = slot;
    content.state = State::sending;
    content.transfer = ++transfers_;
    effects_.push_back(Send{content.transfer, slot, content.staged});
    update(content);
  }
  choose_draining();
}

// An empty slot, or one whose adapter nobody leases: first of those that no request wants, least recently used first.
// -1: all are leased or on their way.
int32_t AdapterSlots::free_slot() {
  if (!free_slots_.empty()) return free_slots_.extract(free_slots_.begin()).value();
  const Index* from = nullptr;
  for (const Index* index : {&resident_, &draining_}) {
    if (!index->empty() && (from == nullptr || *index->begin() < *from->begin())) from = index;
  }
  if (from == nullptr || std::get<0>(*from->begin()) > 0) return -1;
  Content& content = *std::get<Content*>(*from->begin());
  const int32_t slot = std::exchange(content.slot, -1);
  content.draining = false;
  content.state = State::none;
  if (!content.waiters.empty()) queue(content);  // who came while it drained: at the end of the queue
  update(content);
  return slot;
}

// Every content that waits has a resident one that drains for it, as far as there are any: the one with the fewest
// leases, since it is done the soonest. Who is spared after all goes on.
void AdapterSlots::choose_draining() {
  while (draining_.size() < queue_.size() && !resident_.empty()) {
    Content& next = *std::get<Content*>(*resident_.begin());
    next.draining = true;
    update(next);
  }
  while (draining_.size() > queue_.size()) {
    Content& spare = *std::get<Content*>(*draining_.rbegin());
    spare.draining = false;
    grant(spare);
    update(spare);
  }
}

void AdapterSlots::grant(Content& content) {
  for (const Id id : std::exchange(content.waiters, {})) {
    content.leases.insert(id);
    effects_.push_back(Acquired{id, engine::SlotId(content.slot), ""});
  }
}

void AdapterSlots::fail_waiters(Content& content, const std::string& error, bool ranks_failed) {
  for (const Id id : std::exchange(content.waiters, {})) {
    effects_.push_back(Acquired{id, engine::kBaseSlot, error, ranks_failed});
  }
}

void AdapterSlots::sent(const std::string& digest, const std::string& error, bool ranks_failed) {
  const auto it = contents_.find(digest);
  if (it == contents_.end() || it->second.state != State::sending) return;
  Content& content = it->second;
  content.error = ranks_failed ? "" : error;
  if (error.empty()) {
    content.state = State::resident;
    grant(content);
  } else {
    effects_.push_back(Clear{content.transfer, content.slot, digest});
    free_slots_.insert(std::exchange(content.slot, -1));
    content.state = State::none;
    fail_waiters(content, error, ranks_failed);
  }
  update(content);
  assign_slots();
}

void AdapterSlots::group_formed() {
  group_ = true;
  assign_slots();
}

void AdapterSlots::group_lost() {
  group_ = false;
  for (int32_t slot = 0; slot < num_slots_; ++slot) free_slots_.insert(slot);
  std::vector<Content*> in_slots;
  for (auto& [digest, content] : contents_) {
    if (content.slot >= 0) in_slots.push_back(&content);
  }
  std::sort(in_slots.begin(), in_slots.end(), [](const Content* a, const Content* b) { return a->slot < b->slot; });
  for (Content* content : in_slots) {
    content->leases.clear();  // the engine forgets the sequences that held them
    content->slot = -1;
    content->draining = false;
    content->state = State::none;
    if (!content->waiters.empty()) queue(*content);
    update(*content);
  }
}

// Brings what depends on the content's state up to date: its place in an index, its pin, its being known at all. The
// content may be gone afterwards.
void AdapterSlots::update(Content& content) {
  Index* const index = content.state != State::resident || content.kept ? nullptr
                       : content.draining                               ? &draining_
                                                                        : &resident_;
  const Key key(content.leases.size(), content.claims > 0, content.last_used, &content);
  if (index != content.index || key != content.key) {
    if (content.index != nullptr) content.index->erase(content.key);
    if (index != nullptr) index->insert(key);
    content.index = index;
    content.key = key;
  }
  const bool pin = !content.leases.empty() || !content.waiters.empty() || content.state == State::sending;
  if (!pin) content.staged = nullptr;
  if (pin && !content.pinned) effects_.push_back(Pin{*content.digest});
  if (!pin && content.pinned) effects_.push_back(Unpin{*content.digest});
  content.pinned = pin;
  if (!pin && content.state == State::none && content.claims == 0 && !content.kept && content.error.empty()) {
    contents_.erase(contents_.find(*content.digest));
  }
}

AdapterSlots::Row AdapterSlots::row(const std::string& digest) const {
  constexpr const char* kStates[] = {"none", "waiting", "sending", "resident"};
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return {};
  const Content& content = it->second;
  return {kStates[static_cast<size_t>(content.state)], content.error, content.slot, content.leases.size()};
}

}  // namespace lorikeet::actors
