// The tiers of adapters as the status shows them.
#pragma once

#include "actors/head/adapter_slots.h"
#include "actors/head/host_adapters.h"
#include "actors/wire/server_status.h"

namespace lorikeet::actors {

AdapterTiers tiers_of(const HostAdapters& host, const AdapterSlots& slots, const AdapterLookups& lookups);

}  // namespace lorikeet::actors
