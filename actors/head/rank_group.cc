#include "actors/head/rank_group.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

RankGroup::RankGroup(int32_t ranks, uint64_t epoch) : epoch_(epoch), members_(static_cast<size_t>(ranks)) {
  CHECK_GT(ranks, 0);
}

Result<void> RankGroup::admit(int32_t rank, int32_t pid, uint64_t epoch, std::string host, std::string device) {
  if (rank < 0 || rank >= size()) return fail("rank {} of a group of {}", rank, size());
  if (epoch != epoch_ || lost_) return fail("rank {} is of epoch {}, the group is of epoch {}", rank, epoch, epoch_);
  Member& member = members_[static_cast<size_t>(rank)];
  if (member.state != RankState::absent) {
    if (member.pid == pid) return {};
    return fail("rank {} of epoch {} is process {}, not {}", rank, epoch, member.pid, pid);
  }
  member = {RankState::loading, pid, std::move(host), std::move(device), {}};
  return {};
}

Result<void> RankGroup::advance(int32_t rank, RankState from, RankState to) {
  if (rank < 0 || rank >= size()) return fail("rank {} of a group of {}", rank, size());
  RankState& state = members_[static_cast<size_t>(rank)].state;
  if (state != from || lost_) return fail("rank {} is {} and says it is {}", rank, name_of(state), name_of(to));
  state = to;
  return {};
}

Result<void> RankGroup::loaded(int32_t rank, const RankLoaded& loaded) {
  if (loaded.num_blocks < 1) return fail("rank {} can hold {} KV blocks", rank, loaded.num_blocks);
  if (auto ok = advance(rank, RankState::loading, RankState::loaded); !ok) return ok;
  members_[static_cast<size_t>(rank)].loaded = loaded;
  return {};
}

Result<void> RankGroup::ready(int32_t rank) {
  if (!all_loaded()) return fail("rank {} is ready before all ranks have loaded", rank);
  return advance(rank, RankState::loaded, RankState::ready);
}

void RankGroup::lose() {
  lost_ = true;
  for (Member& member : members_) member.state = RankState::lost;
}

void RankGroup::start_epoch(uint64_t epoch) {
  CHECK_GT(epoch, epoch_);
  epoch_ = epoch;
  lost_ = false;
  members_.assign(members_.size(), {});
}

int32_t RankGroup::num_blocks() const {
  CHECK(all_loaded());
  int32_t blocks = members_[0].loaded.num_blocks;
  for (const Member& member : members_) blocks = std::min(blocks, member.loaded.num_blocks);
  return blocks;
}

bool RankGroup::keeps_kv() {
  CHECK(all_loaded());
  std::vector<uint64_t> now;
  for (const Member& member : members_) now.push_back(member.loaded.kv_epoch > 0 ? member.loaded.kv_epoch : epoch_);
  const bool has_none =
      std::any_of(members_.begin(), members_.end(), [](const Member& m) { return m.loaded.kv_epoch == 0; });
  return std::exchange(kv_epochs_, now) == now && !has_none;
}

bool RankGroup::all_at_least(RankState state) const {
  return std::all_of(members_.begin(), members_.end(), [&](const Member& m) { return m.state >= state && !lost_; });
}

}  // namespace lorikeet::actors
