// In which order unused records are evicted: the least recently used first, but a record that is used often is not
// displaced by one that was used once, so a scan over many records empties nothing (after W-TinyLFU: Einziger, Friedman,
// Manes 2017).
//
//   push() of a new one --> recent --(the recent ones take more than their share)--> settled --> victim()
//                                     used no less often than the next victim: at the end, else it is the next victim
//
// A record that had settled before it was used again comes back to the end of the settled ones. Every call costs the same
// however many records there are: a record is moved on at most once for each time that it is pushed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "actors/head/frequency_sketch.h"
#include "actors/head/record_list.h"

namespace lorikeet::actors {

// What a record has of its place in such an order.
struct EvictionState {
  uint64_t hash = 0;    // of its key, by which its uses are counted
  uint64_t weight = 1;  // the room that it takes; unchanged while it is in the order
  bool settled = false;
};

template <class Record, ListLinks<Record> Record::*kLinks, EvictionState Record::*kState>
class EvictionOrder {
 public:
  // `uses` outlives the order. `share`: the weight that the recent ones may have.
  EvictionOrder(const FrequencySketch& uses, uint64_t share) : uses_(uses), share_(share) {}

  bool empty() const { return recent_.empty() && settled_.empty(); }
  size_t size() const { return recent_.size() + settled_.size(); }

  void push(Record& record) {
    if ((record.*kState).settled) {
      settled_.push_back(record);
    } else {
      recent_.push_back(record);
      recent_weight_ += (record.*kState).weight;
      settle();
    }
  }

  void erase(Record& record) {
    const EvictionState& state = record.*kState;
    (state.settled ? settled_ : recent_).erase(record);
    if (!state.settled) recent_weight_ -= state.weight;
  }

  // Who is to go next; there must be one.
  Record& victim() const {
    if (settled_.empty()) return recent_.front();
    const bool one_recent_goes = !recent_.empty() && recent_weight_ >= share_ && is_weak(recent_.front());
    return one_recent_goes ? recent_.front() : settled_.front();
  }

  template <class Visit>
  void for_each(Visit&& visit) const {
    recent_.for_each(visit);
    settled_.for_each(visit);
  }

 private:
  // Used less often than the first of those that have settled.
  bool is_weak(const Record& record) const {
    return !settled_.empty() && uses_.estimate((record.*kState).hash) < uses_.estimate((settled_.front().*kState).hash);
  }

  void settle() {
    while (recent_weight_ > share_) {
      Record& oldest = recent_.front();
      EvictionState& state = oldest.*kState;
      recent_.erase(oldest);
      recent_weight_ -= state.weight;
      is_weak(oldest) ? settled_.push_front(oldest) : settled_.push_back(oldest);
      state.settled = true;
    }
  }

  using List = RecordList<Record, kLinks>;

  const FrequencySketch& uses_;
  const uint64_t share_;
  List recent_, settled_;
  uint64_t recent_weight_ = 0;
};

}  // namespace lorikeet::actors
