#include "engine/fair_queue.h"

#include <glog/logging.h>

namespace lorikeet::engine {

GroupId FairQueue::join(const std::string& adapter) {
  if (const auto known = by_adapter_.find(adapter); known != by_adapter_.end()) {
    ++at(known->second).num_sequences;
    return known->second;
  }
  const int64_t start = least_served();
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
  served_[static_cast<size_t>(group.value())] = start;
  list_by_served(group);
  return group;
}

void FairQueue::list_by_served(GroupId group) {
  const int64_t served = served_[static_cast<size_t>(group.value())];
  at(group).served_when_listed = served;
  by_served_.emplace(served, group);
}

// 0 where there is no group.
int64_t FairQueue::least_served() {
  while (!by_served_.empty()) {
    const auto [served, group] = *by_served_.begin();
    if (served == served_[static_cast<size_t>(group.value())]) return served;
    by_served_.erase(by_served_.begin());
    list_by_served(group);
  }
  return 0;
}

void FairQueue::leave(GroupId group) {
  Group& left = at(group);
  CHECK_GT(left.num_sequences, 0);
  if (--left.num_sequences > 0) return;
  CHECK(left.queue.empty() && left.asking.empty() && left.without_lease.empty());
  set_gives_way(left, false);
  by_adapter_.erase(left.adapter);
  by_served_.erase({left.served_when_listed, group});
  free_groups_.push_back(group);
}

void FairQueue::set_gives_way(const std::string& adapter, bool gives_way) {
  const auto known = by_adapter_.find(adapter);
  if (known != by_adapter_.end()) set_gives_way(at(known->second), gives_way);
}

void FairQueue::set_gives_way(Group& group, bool gives_way) {
  num_giving_way_ += int32_t{gives_way} - int32_t{group.gives_way};
  group.gives_way = gives_way;
}

FairQueue::Key FairQueue::key_of(const Sequence& sequence) {
  const bool is_new = sequence.admission() == 0;
  return {is_new, is_new ? sequence.arrival() : sequence.admission()};
}

std::map<FairQueue::Key, Sequence*>& FairQueue::place_of(Group& group, LeaseState lease) {
  return lease == LeaseState::unasked ? group.without_lease : lease == LeaseState::asked ? group.asking : group.queue;
}

void FairQueue::push(Sequence& sequence) {
  CHECK(place_of(at(sequence.group()), sequence.lease()).emplace(key_of(sequence), &sequence).second);
  note_queue(sequence.group());
}

void FairQueue::remove(Sequence& sequence) {
  Group& group = at(sequence.group());
  const Key key = key_of(sequence);
  // Whose lease was refused is still among those that ask.
  CHECK_EQ(group.queue.erase(key) + group.asking.erase(key) + group.without_lease.erase(key), 1u);
  note_queue(sequence.group());
}

void FairQueue::note_lease(Sequence& sequence) {
  Group& group = at(sequence.group());
  group.queue.insert(group.asking.extract(key_of(sequence)));
  note_queue(sequence.group());
}

void FairQueue::note_asked_again(Sequence& sequence) {
  Group& group = at(sequence.group());
  group.asking.insert(group.queue.extract(key_of(sequence)));
  note_queue(sequence.group());
}

void FairQueue::note_queue(GroupId id) {
  Group& group = at(id);
  const bool startable = !group.queue.empty();
  if (startable == group.startable_key.has_value()) return;
  if (startable) {
    group.startable_key = served_[static_cast<size_t>(id.value())];
    startable_.emplace(*group.startable_key, id);
  } else {
    startable_.erase({*group.startable_key, id});
    group.startable_key.reset();
  }
}

std::vector<Sequence*> FairQueue::ask_leases(GroupId id) {
  std::vector<Sequence*> asking;
  Group& group = at(id);
  while (!group.without_lease.empty() && group.queue.size() + group.asking.size() < kMaxLeasesAhead) {
    auto node = group.without_lease.extract(group.without_lease.begin());
    node.mapped()->set_lease(LeaseState::asked);
    asking.push_back(node.mapped());
    group.asking.insert(std::move(node));
  }
  return asking;
}

std::vector<GroupId> FairQueue::groups() const {
  std::vector<GroupId> all;
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (groups_[i].num_sequences > 0) all.push_back(GroupId(static_cast<int32_t>(i)));
  }
  return all;
}

void FairQueue::list_candidates(size_t num_groups, size_t limit, std::vector<WaitingSequence>& views,
                                std::vector<Sequence*>& sequences) {
  for (auto next = startable_.begin(); next != startable_.end() && num_groups > 0;) {
    const auto [key, id] = *next;
    const int64_t served = served_[static_cast<size_t>(id.value())];
    if (key != served) {  // it was given more since, and comes later
      next = startable_.erase(next);
      const auto again = startable_.emplace(served, id).first;
      at(id).startable_key = served;
      if (next == startable_.end() || *again < *next) next = again;
      continue;
    }
    ++next;
    size_t listed = 0;
    for (const auto& [place, sequence] : at(id).queue) {
      if (listed == limit) break;
      if (!sequence->can_start()) continue;
      views.push_back({sequence->group(), sequence->num_tokens()});
      sequences.push_back(sequence);
      ++listed;
    }
    if (listed > 0) --num_groups;
  }
}

}  // namespace lorikeet::engine
