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
#include <optional>
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

  // `sequence` stays waiting or preempted, and in memory, until it is removed.
  void push(Sequence& sequence);
  void remove(Sequence& sequence);

  // A sequence in the queue holds its lease now.
  void note_lease(Sequence& sequence);
  // A sequence that held its lease gave it back and has asked for another.
  void note_asked_again(Sequence& sequence);

  // Returns the sequences of a group whose turn it is to ask for a lease, marked as having asked.
  std::vector<Sequence*> ask_leases(GroupId group);

  // Those with requests.
  std::vector<GroupId> groups() const;

  // Sets whether the adapter's running sequences give their leases back after a turn. No effect where no request has it.
  void set_gives_way(const std::string& adapter, bool gives_way);
  bool gives_way(GroupId group) const { return at(group).gives_way; }
  bool any_gives_way() const { return num_giving_way_ > 0; }

  // Appends up to `limit` sequences that can start now of each of the `num_groups` groups that were given the least (of
  // equals the lower ones), among those that have such sequences.
  void list_candidates(size_t num_groups, size_t limit, std::vector<WaitingSequence>& views,
                       std::vector<Sequence*>& sequences);

  // Groups that list_candidates() may look at.
  size_t num_startable() const { return startable_.size(); }

  void charge(GroupId group, int32_t tokens) { served_[static_cast<size_t>(group.value())] += tokens; }
  std::span<const int64_t> served() const { return served_; }  // by GroupId

 private:
  using Key = std::pair<bool, uint64_t>;  // never admitted, age
  struct Group {
    std::string adapter;
    int64_t num_sequences = 0;  // 0: this GroupId is free
    bool gives_way = false;
    std::map<Key, Sequence*> queue;          // their lease is held or unneeded
    std::map<Key, Sequence*> asking;         // their lease is asked for
    std::map<Key, Sequence*> without_lease;  // new ones behind all of the others
    int64_t served_when_listed = 0;          // its key in by_served_
    std::optional<int64_t> startable_key;    // and in startable_, where it is there
  };

  static Key key_of(const Sequence& sequence);
  static std::map<Key, Sequence*>& place_of(Group& group, LeaseState lease);
  Group& at(GroupId group) { return groups_[static_cast<size_t>(group.value())]; }
  const Group& at(GroupId group) const { return groups_[static_cast<size_t>(group.value())]; }
  int64_t least_served();
  void list_by_served(GroupId group);
  void note_queue(GroupId group);
  void set_gives_way(Group& group, bool gives_way);

  std::vector<Group> groups_;    // by GroupId
  std::vector<int64_t> served_;  // by GroupId
  std::vector<GroupId> free_groups_;
  int32_t num_giving_way_ = 0;
  std::unordered_map<std::string, GroupId> by_adapter_;
  // Every group with requests, by what it had been given when it was listed. Charging happens for every row, so these keys
  // are brought up to date only when the least of them is asked for.
  std::set<std::pair<int64_t, GroupId>> by_served_;
  // The same for groups whose `queue` is not empty.
  std::set<std::pair<int64_t, GroupId>> startable_;
};

}  // namespace lorikeet::engine
