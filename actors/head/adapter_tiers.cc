#include "actors/head/adapter_tiers.h"

namespace lorikeet::actors {

AdapterTiers tiers_of(const HostAdapters& host, const AdapterSlots& slots, const AdapterLookups& lookups) {
  AdapterTiers tiers;
  tiers.slots.adapters = slots.used();
  tiers.slots.most = static_cast<uint64_t>(slots.size());
  tiers.slots.bytes = slots.used_bytes();
  tiers.slots.budget_bytes = slots.budget_bytes();
  tiers.slots.hits = lookups.slot_hits;
  tiers.slots.misses = lookups.slot_lookups - lookups.slot_hits;
  tiers.slots.evictions = slots.evictions();
  tiers.host.adapters = host.staged_count();
  tiers.host.most = host.most();
  tiers.host.bytes = host.staged_bytes();
  tiers.host.budget_bytes = host.budget_bytes();
  tiers.host.hits = lookups.host_hits;
  tiers.host.misses = lookups.lookups - lookups.host_hits;
  tiers.host.evictions = host.evictions();
  return tiers;
}

}  // namespace lorikeet::actors
