// Finds records by a key that they hold themselves. The cost of a look-up hardly depends on how many records there are,
// neither in steps (only for_each() walks) nor in time: with a hundred thousand records none is in a cache, and each
// pointer that is followed is a wait for memory. So a record lies in one piece (engine/record_pool.h), the index beside it
// is small, and what will be touched is prefetched.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include "engine/huge_pages.h"
#include "engine/record_pool.h"

namespace lorikeet::engine {

// Prefetches a record. Null is fine.
template <class Record>
void prefetch_record(const Record* record) {
  for (size_t at = 0; at < sizeof(Record); at += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(record) + at, 1);
  }
}

// Owns the records. KeyOf{}(record) is a record's key, which must not change while it is in the index. Not for use by two
// threads at once.
template <class Record, class KeyOf>
class RecordIndex {
 public:
  using Key = std::remove_cvref_t<std::invoke_result_t<KeyOf, const Record&>>;
  using Pointer = typename RecordPool<Record>::Pointer;

  explicit RecordIndex(RecordPool<Record>& pool) : pool_(pool) {}
  ~RecordIndex() {
    for (Slot& slot : slots_) take(slot);
  }
  RecordIndex(const RecordIndex&) = delete;
  RecordIndex& operator=(const RecordIndex&) = delete;

  size_t size() const { return size_; }

  Record* find(const Key& key) const {  // null: there is none
    if (size_ == 0) return nullptr;
    const uint64_t hash = hash_of(key);
    for (size_t at = home_of(hash); slots_[at].record != nullptr; at = next(at)) {
      ++looks_;
      if (slots_[at].hash != hash) continue;
      prefetch_record(slots_[at].record);
      if (KeyOf{}(*slots_[at].record) == key) return slots_[at].record;
    }
    return nullptr;
  }

  // There must be none with its key.
  Record& insert(Pointer record) {
    reserve(size_ + 1);
    Record* const inserted = record.release();
    place({hash_of(KeyOf{}(*inserted)), inserted});
    ++size_;
    return *inserted;
  }

  Pointer extract(const Key& key) {  // null: there is none
    Record* const record = find(key);
    if (record == nullptr) return nullptr;
    size_t gap = home_of(hash_of(key));
    while (slots_[gap].record != record) gap = next(gap);
    Pointer taken = take(slots_[gap]);
    --size_;
    // Records behind the gap move up, unless they would come to lie before the place of their hash.
    for (size_t at = next(gap); slots_[at].record != nullptr; at = next(at)) {
      ++looks_;
      const size_t mask = slots_.size() - 1;
      if (((at - home_of(slots_[at].hash)) & mask) < ((at - gap) & mask)) continue;
      slots_[gap] = std::exchange(slots_[at], {});
      gap = at;
    }
    return taken;
  }

  void reserve(size_t count) {  // makes room for so many records; walks over all if that needs a larger table
    if (count * 8 <= slots_.size() * 7) return;
    auto old = std::exchange(slots_, HugeVector<Slot>(std::bit_ceil(count * 8 / 7 + 1)));
    for (const Slot& slot : old) {
      if (slot.record != nullptr) place(slot);
    }
  }

  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const Slot& slot : slots_) {
      ++looks_;
      if (slot.record != nullptr) visit(*slot.record);
    }
  }

  // The same for at most `most` records, in no order.
  template <class Visit>
  void for_some(size_t most, Visit&& visit) const {
    for (size_t at = 0; at < slots_.size() && most > 0; ++at) {
      ++looks_;
      if (slots_[at].record == nullptr) continue;
      visit(*slots_[at].record);
      --most;
    }
  }

  // Places looked at since it was made: tests show by it that nothing walks.
  uint64_t looks() const { return looks_; }

 private:
  struct Slot {
    uint64_t hash = 0;
    Record* record = nullptr;
  };

  // Keys that are numbers, counted up, are their own hash: neighbours in time are neighbours in memory.
  static uint64_t hash_of(const Key& key) { return std::hash<Key>{}(key); }
  size_t home_of(uint64_t hash) const { return hash & (slots_.size() - 1); }
  size_t next(size_t at) const { return (at + 1) & (slots_.size() - 1); }
  Pointer take(Slot& slot) {
    return Pointer(std::exchange(slot.record, nullptr), typename RecordPool<Record>::Deleter{&pool_});
  }
  void place(const Slot& slot) {
    size_t at = home_of(slot.hash);
    while (slots_[at].record != nullptr) at = next(at);
    slots_[at] = slot;
  }

  RecordPool<Record>& pool_;
  HugeVector<Slot> slots_;  // a power of two of them, at least an eighth empty
  size_t size_ = 0;
  mutable uint64_t looks_ = 0;
};

}  // namespace lorikeet::engine
