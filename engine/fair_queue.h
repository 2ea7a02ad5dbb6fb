// Who waits, and how much each adapter has been given.
//
// The requests of one adapter (by digest; the base model counts as one) form a group. Within a group, preempted
// sequences come before new ones, each in order of age. Between groups the policy decides by `served`.
//
// Only the first few waiting requests of a group hold or ask for a lease on its adapter: a flood of requests must not
// pin an adapter for longer than its turn, or another would never find a free slot.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/plan_step.h"
#include "engine/sequence.h"

namespace lorikeet::engine {

class FairQueue {
 public:
  static constexpr size_t kMaxLeasesAhead = 32;  // of one group's waiting sequences

  // A request of this adapter exists from join to leave. A group that had none starts level with the least served of
  // the others, so that time spent away earns nothing.
  GroupId join(const std::string& adapter);
  void leave(GroupId group);

  // `sequence` is waiting or preempted until it is removed, and outlives that.
  void push(Sequence& sequence);
  void remove(Sequence& sequence);

  // Marks those sequences of a group as having asked for a lease whose turn it is, and returns them.
  std::vector<Sequence*> ask_leases(GroupId group);

  // Those with requests.
  std::vector<GroupId> groups() const;

  // Appends up to `limit` sequences of each group that can start now.
  void list_candidates(size_t limit, std::vector<WaitingSequence>& views, std::vector<Sequence*>& sequences) const;

  void charge(GroupId group, int32_t tokens) { served_[static_cast<size_t>(group.value())] += tokens; }
  std::span<const int64_t> served() const { return served_; }  // by GroupId

 private:
  using Key = std::pair<bool, uint64_t>;  // never admitted, age
  struct Group {
    std::string adapter;
    int64_t num_sequences = 0;               // 0: this GroupId is free
    std::map<Key, Sequence*> queue;          // their lease is held, asked for or unneeded
    std::map<Key, Sequence*> without_lease;  // behind all of `queue`
    int64_t served_when_listed = 0;          // its key in by_served_
  };

  static Key key_of(const Sequence& sequence);
  Group& at(GroupId group) { return groups_[static_cast<size_t>(group.value())]; }
  const Group& at(GroupId group) const { return groups_[static_cast<size_t>(group.value())]; }
  int64_t least_served();
  void list_by_served(GroupId group);
  void note_queue(GroupId group);

  std::vector<Group> groups_;    // by GroupId
  std::vector<int64_t> served_;  // by GroupId
  std::vector<GroupId> free_groups_;
  std::unordered_map<std::string, GroupId> by_adapter_;
  std::set<GroupId> queued_;  // whose `queue` is not empty
  // Every group with requests, by what it had been given when it was listed: the least of them is brought up to date
  // when it is asked for, since charging is done for every row.
  std::set<std::pair<int64_t, GroupId>> by_served_;
};

}  // namespace lorikeet::engine
