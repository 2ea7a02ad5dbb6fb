#include "actors/supervisor/region_keeper.h"

#include <utility>

#include "actors/wire/limits.h"
#include "kernels/base/resident_memory.h"

namespace lorikeet::actors {
namespace {

// Whether the descriptor is one of that memory.
Result<void> check_kind(const RegionDescription& what, const Descriptor& memory) {
  const auto size = kernels::sealed_size(memory);
  if (!size) return tl::unexpected(size.error());
  if (*size != what.bytes) return fail("it has {} bytes, and is said to have {}", *size, what.bytes);
  return {};
}

}  // namespace

Result<void> RegionKeeper::hold(int32_t rank, RegionDescription what, Descriptor memory) {
  if (rank < 0) return fail("only ranks have memory that is held");
  if (what.name.empty() || what.name.size() > kMaxRegionNameBytes) {
    return fail("a name of {} bytes, 1 to {} are taken", what.name.size(), kMaxRegionNameBytes);
  }
  if (auto ok = check_kind(what, memory); !ok) return ok;
  auto region = std::make_shared<const HeldRegion>(HeldRegion{std::move(what), std::move(memory)});
  std::shared_ptr<const HeldRegion> replaced;  // closed without the lock
  const std::lock_guard lock(mutex_);
  OfRank& held = ranks_[rank];
  uint64_t others = 0;
  for (const auto& [name, other] : held) {
    if (name != region->what.name) others += other->what.bytes;
  }
  if (region->what.bytes > kMaxRegionBytes - others) return fail("more than {} bytes", kMaxRegionBytes);
  const auto it = held.find(region->what.name);
  if (it == held.end()) {
    if (held.size() >= kMaxRegions) return fail("more than {} regions", kMaxRegions);
    held.emplace(region->what.name, std::move(region));
  } else {
    replaced = std::exchange(it->second, std::move(region));
  }
  return {};
}

void RegionKeeper::drop(int32_t rank) {
  OfRank dropped;  // closed without the lock
  const std::lock_guard lock(mutex_);
  const auto it = ranks_.find(rank);
  if (it == ranks_.end()) return;
  dropped = std::move(it->second);
  ranks_.erase(it);
}

std::vector<std::shared_ptr<const HeldRegion>> RegionKeeper::of(int32_t rank) const {
  std::vector<std::shared_ptr<const HeldRegion>> all;
  const std::lock_guard lock(mutex_);
  const auto it = ranks_.find(rank);
  if (it == ranks_.end()) return all;
  for (const auto& [name, region] : it->second) all.push_back(region);
  return all;
}

}  // namespace lorikeet::actors
