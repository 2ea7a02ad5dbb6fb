#include "engine/fair_queue.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>

namespace lorikeet::engine {

GroupId FairQueue::join(const std::string& adapter) {
  if (const auto known = by_adapter_.find(adapter); known != by_adapter_.end()) {
    ++at(known->second).num_sequences;
    return known->second;
  }
  int64_t least_served = std::numeric_limits<int64_t>::max();
  for (const auto& [name, group] : by_adapter_) {
    least_served = std::min(least_served, served_[static_cast<size_t>(group.value())]);
  }
  if (by_adapter_.empty()) least_served = 0;
  if (free_groups_.empty()) {
    free_groups_.push_back(GroupId(static_cast<int32_t>(groups_.size())));
    groups_.emplace_back();
    served_.push_back(0);
  }
  const GroupId group = free_groups_.back();
  free_groups_.pop_back();
  by_adapter_.emplace(adapter, group);
  at(group).adapter = adapter;
  at(group).num_sequences = 1;
  served_[static_cast<size_t>(group.value())] = least_served;
  return group;
}

void FairQueue::leave(GroupId group) {
  Group& left = at(group);
  CHECK_GT(left.num_sequences, 0);
  if (--left.num_sequences > 0) return;
  CHECK(left.queue.empty() && left.without_lease.empty());
  by_adapter_.erase(left.adapter);
  free_groups_.push_back(group);
}

FairQueue::Key FairQueue::key_of(const Sequence& sequence) {
  const bool is_new = sequence.admission() == 0;
  return {is_new, is_new ? sequence.arrival() : sequence.admission()};
}

void FairQueue::push(Sequence& sequence) {
  Group& group = at(sequence.group());
  auto& queue = sequence.lease() == LeaseState::unasked ? group.without_lease : group.queue;
  CHECK(queue.emplace(key_of(sequence), &sequence).second);
}

void FairQueue::remove(Sequence& sequence) {
  Group& group = at(sequence.group());
  auto& queue = sequence.lease() == LeaseState::unasked ? group.without_lease : group.queue;
  CHECK_EQ(queue.erase(key_of(sequence)), 1u);
}

std::vector<Sequence*> FairQueue::ask_leases(GroupId id) {
  std::vector<Sequence*> asking;
  Group& group = at(id);
  while (!group.without_lease.empty() && group.queue.size() < kMaxLeasesAhead) {
    auto node = group.without_lease.extract(group.without_lease.begin());
    node.mapped()->set_lease(LeaseState::asked);
    asking.push_back(node.mapped());
    group.queue.insert(std::move(node));
  }
  return asking;
}

void FairQueue::list_candidates(size_t limit, std::vector<WaitingSequence>& views,
                                std::vector<Sequence*>& sequences) const {
  for (const Group& group : groups_) {
    size_t listed = 0;
    for (const auto& [key, sequence] : group.queue) {
      // Those behind one whose adapter is not there wait for the same one.
      if (listed == limit || sequence->lease() == LeaseState::asked) break;
      if (!sequence->can_start()) continue;
      views.push_back({sequence->group(), sequence->num_tokens()});
      sequences.push_back(sequence);
      ++listed;
    }
  }
}

}  // namespace lorikeet::engine
