#include "actors/supervisor/region_keeper.h"

#include <sys/stat.h>

#include <utility>

#include "actors/wire/limits.h"
#include "kernels/base/resident_memory.h"
#include "kernels/base/shared_memory.h"

namespace lorikeet::actors {
namespace {

// Whether the descriptor can be one of that memory. What a device's driver shares is none of the kinds that files are.
Result<void> check_kind(const RegionDescription& what, const Descriptor& memory) {
  if (what.kind == RegionKind::device) {
    struct stat info {};
    if (fstat(memory.get(), &info) != 0) return fail("no descriptor came with it");
    const mode_t kind = info.st_mode & S_IFMT;
    if (kind == S_IFREG || kind == S_IFDIR || kind == S_IFIFO || kind == S_IFSOCK || kind == S_IFBLK) {
      return fail("its descriptor is not one of device memory");
    }
    return {};
  }
  const auto size = what.kind == RegionKind::shared ? kernels::shared_size(memory) : kernels::sealed_size(memory);
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
  const auto checked = check_kind(what, memory);
  OfRank::node_type replaced;  // closed without the lock
  const std::lock_guard lock(mutex_);
  OfRank& held = ranks_[rank];
  replaced = held.extract(what.name);
  if (!checked) return checked;
  uint64_t others = 0;
  for (const auto& [name, other] : held) others += other->what.bytes;
  if (what.bytes > kMaxRegionBytes - others) return fail("more than {} bytes", kMaxRegionBytes);
  if (held.size() >= kMaxRegions) return fail("more than {} regions", kMaxRegions);
  const std::string name = what.name;
  held.emplace(name, std::make_shared<const HeldRegion>(HeldRegion{std::move(what), std::move(memory)}));
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

void RegionKeeper::drop(int32_t rank, const std::string& name) {
  OfRank::node_type dropped;  // closed without the lock
  const std::lock_guard lock(mutex_);
  const auto it = ranks_.find(rank);
  if (it != ranks_.end()) dropped = it->second.extract(name);
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
