#include "actors/head/adapter_slots.h"

#include <glog/logging.h>

#include <algorithm>
#include <functional>
#include <limits>

namespace lorikeet::actors {
namespace {

// The share of slots for new contents, before they compete with those that stay.
constexpr uint64_t kRecentShare = 8;

uint64_t recent_slots(int32_t slots) {
  return std::max<uint64_t>(1, static_cast<uint64_t>(slots) / kRecentShare);
}

}  // namespace

AdapterSlots::AdapterSlots(Limits limits)
    : in_slots_(static_cast<size_t>(limits.count)),
      idle_(uses_, recent_slots(limits.count)),
      claimed_(uses_, recent_slots(limits.count)),
      limits_(limits) {
  for (int32_t slot = 0; slot < limits_.count; ++slot) {
    free_slots_.insert(slot);
    if (limits_.bytes > 0) unknown_.insert(slot);
  }
}

void AdapterSlots::claimed(const std::string& digest) {
  Content& content = find_or_add(digest);
  ++content.claims;
  uses_.add(content.eviction.hash);
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
  const State state = it == contents_.end() ? State::none : it->second.state;
  if (staged == nullptr && (state == State::none || state == State::former)) {
    effects_.push_back(Acquired{id, engine::kBaseSlot, "the adapter's content is not here any more"});
    return;
  }
  Content& content = it != contents_.end() ? it->second : find_or_add(digest);
  content.last_used = ++clock_;
  content.waiters.insert(id);
  if (staged != nullptr) content.staged = std::move(staged);
  if (content.state == State::resident && !content.draining) {
    grant(content);
  } else if (state == State::none || state == State::former) {
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
  if (content.waiters.empty() && content.state == State::waiting) leave_queue(content);
  update(content);
  assign_slots();
}

void AdapterSlots::drop(const std::string& digest) {
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return;
  Content& content = it->second;
  content.error.clear();
  const bool is_in_slot = content.state == State::resident || content.state == State::former;
  if (is_in_slot && content.leases.empty() && content.waiters.empty()) empty_slot(content);
  update(content);
  assign_slots();
}

bool AdapterSlots::may_keep(const std::string& digest, const StagedAdapter* staged) const {
  const auto it = contents_.find(digest);
  if (limits_.bytes == 0 || staged == nullptr || (it != contents_.end() && it->second.kept)) return true;
  return promised_bytes_ + bytes_of(*staged) <= limits_.bytes / 2;
}

void AdapterSlots::keep(const std::string& digest, bool kept, const StagedAdapter* staged) {
  if (!kept && !contents_.contains(digest)) return;
  Content& content = find_or_add(digest);
  if (content.kept != kept) {
    if (kept) content.kept_bytes = staged != nullptr ? bytes_of(*staged) : content.slot >= 0 ? content.bytes : 0;
    kept ? promised_bytes_ += content.kept_bytes : promised_bytes_ -= content.kept_bytes;
  }
  content.kept = kept;
  if (kept && content.draining) {
    set_draining(content, false);
    grant(content);
  }
  update(content);
  assign_slots();
}

std::vector<std::string> AdapterSlots::resident() const {
  std::vector<std::string> digests;
  for (const Content* content : in_slots_) {
    if (content != nullptr && content->state == State::resident) digests.push_back(*content->digest);
  }
  return digests;
}

size_t AdapterSlots::used() const {
  return in_slots_.size() - free_slots_.size();
}

bool AdapterSlots::is_resident(const std::string& digest) const {
  const auto it = contents_.find(digest);
  return it != contents_.end() && it->second.state == State::resident;
}

bool AdapterSlots::has_slot_for(const std::string& digest, const StagedAdapter* staged) const {
  if (!group_) return false;
  const auto it = contents_.find(digest);
  const State state = it == contents_.end() ? State::none : it->second.state;
  if (state == State::resident) return !it->second.draining;
  if (state != State::none) return it->second.slot >= 0;
  const bool has_bytes =
      limits_.bytes == 0 || staged == nullptr || used_bytes_ - evictable_bytes_ + bytes_of(*staged) <= limits_.bytes;
  if (!has_bytes) return false;
  return queue_.empty() && (!free_slots_.empty() || next_victim() != nullptr);
}

AdapterSlots::Content& AdapterSlots::find_or_add(const std::string& digest) {
  const auto [it, added] = contents_.try_emplace(digest);
  if (added) {
    it->second.digest = &it->first;
    it->second.eviction.hash = std::hash<std::string>{}(digest);
  }
  return it->second;
}

void AdapterSlots::queue(Content& content) {
  content.state = State::waiting;
  content.ticket = ++tickets_;
  queue_of(content).emplace(content.ticket, &content);
}

// The caller updates the content.
void AdapterSlots::leave_queue(Content& content) {
  queue_of(content).erase(content.ticket);
  content.state = content.slot >= 0 ? State::former : State::none;
}

void AdapterSlots::assign_slots() {
  while (group_ && sending_ < kMostSends && !(returning_.empty() && queue_.empty())) {
    Content& content = *(returning_.empty() ? queue_ : returning_).begin()->second;
    CHECK(content.state == State::waiting);
    std::string error;
    if (content.staged ==
        nullptr) {  // its host copy was dropped while it was resident, and then it lost its slot or group
      error = "the adapter's content is not in memory any more";
    } else if (content.slot >= 0) {
      send(content);
      continue;
    } else {
      const uint64_t bytes = bytes_of(*content.staged);
      error = why_it_never_fits(bytes);
      if (error.empty()) {
        const auto slot = make_place(bytes);
        if (!slot) break;
        enter_slot(content, *slot, bytes);
        continue;
      }
    }
    leave_queue(content);
    fail_waiters(content, error, false);
    update(content);
  }
  choose_draining();
}

// Its bytes on each rank, at most: LoRA ranks may be rounded up there. Packed slices have the size that they take in slots.
uint64_t AdapterSlots::bytes_of(const StagedAdapter& adapter) const {
  if (adapter.ranks() > 0 && adapter.dora.empty()) {
    uint64_t most = 0;
    for (const auto& part : adapter.parts) most = std::max(most, part.bytes);
    for (const auto& slice : adapter.slices) most = std::max<uint64_t>(most, slice.size());
    return most;
  }
  constexpr uint64_t kRankTile = 8;
  const auto ranks = static_cast<uint64_t>(limits_.ranks);
  const uint64_t rank = adapter.max_rank > 0 ? static_cast<uint64_t>(adapter.max_rank) : kRankTile;
  return (adapter.bytes + ranks - 1) / ranks * ((rank + kRankTile - 1) / kRankTile * kRankTile) / rank;
}

void AdapterSlots::enter_slot(Content& content, int32_t slot, uint64_t bytes) {
  queue_.erase(content.ticket);
  content.slot = slot;
  in_slots_[static_cast<size_t>(slot)] = &content;
  content.bytes = bytes;
  used_bytes_ += bytes;
  content.was_resident = false;
  if (limits_.bytes > 0) unsure_.insert(slot);
  send(content);
}

// Sends a content that has a slot to that slot. DoRA's factors are made of all ranks' norms, so all ranks get it again.
void AdapterSlots::send(Content& content) {
  returning_.erase(content.ticket);
  content.state = State::sending;
  ++sending_;
  content.transfer = ++transfers_;
  const bool confirms = content.was_resident && content.staged->dora.empty();
  effects_.push_back(Send{content.transfer, content.slot, content.staged, confirms});
  update(content);
}

// The caller updates the content.
void AdapterSlots::leave_slot(Content& content) {
  find(content, Place::none);
  if (content.state == State::sending) --sending_;
  set_draining(content, false);
  used_bytes_ -= content.bytes;
  in_slots_[static_cast<size_t>(content.slot)] = nullptr;
  free_slots_.insert(std::exchange(content.slot, -1));
  content.eviction.settled = false;
  content.state = State::none;
}

// The same, and where bytes are counted the ranks empty the slot, since the next content may get another one. Comes before
// the Send of the content that takes its place.
void AdapterSlots::empty_slot(Content& content) {
  if (limits_.bytes > 0) {
    unsure_.insert(content.slot);
    if (group_) effects_.push_back(Clear{content.transfer, content.slot, *content.digest});
  }
  leave_slot(content);
}

// Empty: it will have its turn.
std::string AdapterSlots::why_it_never_fits(uint64_t bytes) const {
  if (limits_.bytes == 0 || kept_bytes_ + bytes <= limits_.bytes) return "";
  std::string why = "the adapter takes " + std::to_string(bytes) + " bytes of the " + std::to_string(limits_.bytes) +
                    " that each rank has for adapters";
  if (kept_bytes_ > 0) why += ", of which pinned ones take " + std::to_string(kept_bytes_);
  return why;
}

// A slot, with so many bytes for it; nothing where leases, or ways to the ranks, have too much of them.
std::optional<int32_t> AdapterSlots::make_place(uint64_t bytes) {
  const uint64_t most = limits_.bytes > 0 ? limits_.bytes : std::numeric_limits<uint64_t>::max() - bytes;
  if (used_bytes_ - evictable_bytes_ + bytes > most) return std::nullopt;
  while (free_slots_.empty() || used_bytes_ + bytes > most) {
    Content* const victim = next_victim();
    if (victim == nullptr) return std::nullopt;
    evict(*victim);
  }
  return free_slots_.extract(free_slots_.begin()).value();
}

// Among contents that nobody leases: first those that no request wants, then those that gave way, then the others. Null:
// there is none.
AdapterSlots::Content* AdapterSlots::next_victim() const {
  if (!idle_.empty()) return &idle_.victim();
  if (!draining_.empty() && std::get<0>(*draining_.begin()) == 0) return std::get<Content*>(*draining_.begin());
  return claimed_.empty() ? nullptr : &claimed_.victim();
}

void AdapterSlots::evict(Content& content) {
  empty_slot(content);
  ++evictions_;
  if (!content.waiters.empty()) queue(content);  // who came while it drained: at the end of the queue
  update(content);
}

// Whether the first in the queue still lacks bytes when all that give way have gone, except `spared` of them.
bool AdapterSlots::first_lacks_bytes(uint64_t spared) const {
  if (!group_ || limits_.bytes == 0 || queue_.empty() || queue_.begin()->second->staged == nullptr) return false;
  const uint64_t stays = used_bytes_ - evictable_bytes_ - leaving_bytes_ + spared;
  return stays + bytes_of(*queue_.begin()->second->staged) > limits_.bytes;
}

// For every content that waits, one resident content drains, as far as there are any; no more than can be sent soon, but as
// many as it takes to make the bytes for the first in the queue. Those with the fewest leases drain, since they are done
// soonest. Contents that need not drain after all go on.
void AdapterSlots::choose_draining() {
  const size_t at_once = std::max<size_t>(1, kMostSends - sending_);
  const size_t to_be_had = free_slots_.size() + idle_.size() + claimed_.size();
  const size_t waiting = std::min(queue_.size(), at_once);
  // Where more may be sent, there was no place to be had.
  const size_t needed = sending_ < kMostSends ? waiting : waiting - std::min(waiting, to_be_had);
  while ((draining_.size() < needed || first_lacks_bytes(0)) && !leased_.empty()) {
    Content& next = *std::get<Content*>(*leased_.begin());
    set_draining(next, true);
    update(next);
  }
  while (draining_.size() > needed) {
    Content& spare = *std::get<Content*>(*draining_.rbegin());
    if (first_lacks_bytes(spare.bytes)) break;
    set_draining(spare, false);
    grant(spare);
    update(spare);
  }
}

void AdapterSlots::set_draining(Content& content, bool draining) {
  if (content.draining == draining) return;
  content.draining = draining;
  if (group_) effects_.push_back(GiveWay{*content.digest, draining});
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
    content.was_resident = true;
    unsure_.erase(content.slot);
    unknown_.clear();  // the ranks have carried out all earlier orders
    --sending_;
    grant(content);
  } else {
    effects_.push_back(Clear{content.transfer, content.slot, digest});
    if (limits_.bytes > 0) unsure_.insert(content.slot);
    leave_slot(content);
    fail_waiters(content, error, ranks_failed);
  }
  update(content);
  assign_slots();
}

void AdapterSlots::group_formed() {
  group_ = true;
  for (const auto* const slots : {&unknown_, &unsure_}) {
    for (const int32_t slot : *slots) effects_.push_back(Clear{0, slot, ""});
  }
  assign_slots();
}

void AdapterSlots::group_lost() {
  group_ = false;
  for (Content* const in_slot : in_slots_) {
    if (in_slot == nullptr || in_slot->state == State::waiting) continue;
    Content& content = *in_slot;
    content.leases.clear();  // the engine forgets the sequences that held them
    if (content.state == State::sending) --sending_;
    set_draining(content, false);
    content.state = State::former;
    if (!content.waiters.empty()) queue(content);
    update(content);
  }
}

bool AdapterSlots::is_evictable(const Content& content) {
  return content.place == Place::idle || content.place == Place::claimed ||
         (content.place == Place::draining && std::get<0>(content.key) == 0);
}

bool AdapterSlots::is_leaving(const Content& content) {
  return content.place == Place::draining && std::get<0>(content.key) > 0;
}

// Moves the content from its old place to the place and key that its state gives it.
void AdapterSlots::find(Content& content, Place place) {
  const Key key(content.leases.size(), content.last_used, &content);
  const bool in_index = place == Place::leased || place == Place::draining;
  if (place == content.place && (!in_index || key == content.key)) return;
  const auto index_of = [this](Place p) {
    return p == Place::leased ? &leased_ : p == Place::draining ? &draining_ : nullptr;
  };
  const auto order_of = [this](Place p) {
    return p == Place::idle ? &idle_ : p == Place::claimed ? &claimed_ : nullptr;
  };
  if (is_evictable(content)) evictable_bytes_ -= content.bytes;
  if (is_leaving(content)) leaving_bytes_ -= content.bytes;
  if (Index* const before = index_of(content.place)) before->erase(content.key);
  if (Order* const before = order_of(content.place)) before->erase(content);
  content.place = place;
  content.key = key;
  if (Index* const now = index_of(place)) now->insert(key);
  if (Order* const now = order_of(place)) now->push(content);
  if (is_evictable(content)) evictable_bytes_ += content.bytes;
  if (is_leaving(content)) leaving_bytes_ += content.bytes;
}

// Updates all that depends on the content's state: its place, its pin, and whether it is kept in the table at all. It may
// be gone afterwards.
void AdapterSlots::update(Content& content) {
  const bool may_go = (content.state == State::resident || content.state == State::former) && !content.kept;
  find(content, !may_go                   ? Place::none
                : content.draining        ? Place::draining
                : !content.leases.empty() ? Place::leased
                : content.claims > 0      ? Place::claimed
                                          : Place::idle);
  const bool counts_as_kept = content.kept && content.slot >= 0;
  if (counts_as_kept != content.counts_as_kept) {
    counts_as_kept ? kept_bytes_ += content.bytes : kept_bytes_ -= content.bytes;
    content.counts_as_kept = counts_as_kept;
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
  constexpr const char* kStates[] = {"none", "waiting", "sending", "resident", "none"};
  const auto it = contents_.find(digest);
  if (it == contents_.end()) return {};
  const Content& content = it->second;
  const bool is_there = content.state == State::sending || content.state == State::resident;
  return {kStates[static_cast<size_t>(content.state)], content.error, is_there ? content.slot : -1,
          content.leases.size()};
}

}  // namespace lorikeet::actors
