// The directory of adapters as an actor: it reads each once, sends its slices to the ranks, and knows who holds what.
//
// Receives
//   from the scheduler: ResolveAdapter -> AdapterResolved, UnclaimAdapter, AcquireSlot -> SlotAcquired, ReleaseSlot,
//                       GroupFormed, GroupLost
//   from ranks:         Envelope (AdapterReport)
//   from its threads:   AdapterSource::Checked, AdapterSource::Staged, FactorsMade
//   StatusQuery -> AdaptersStatus; it also looks again for files that were replaced
// Owns: the table of adapters with its claims and leases, the staged host copies, the transfers under way.
// Thread: CAF's; disks and DoRA's arithmetic have threads of their own (AdapterReader).
//
//            GroupFormed
//   staging ------------> sending            staging: adapters are read, requests for slots wait
//      ^                     |
//      `---------------------' GroupLost     sending: slots are filled and given
//
// The states of one adapter are in actors/head/adapter_table.h, those of its way to the ranks in
// actors/adapter_transfer.h.
#pragma once

#include <caf/all.hpp>
#include <functional>
#include <memory>

#include "actors/head/messages.h"
#include "actors/wire/options.h"

namespace lorikeet::actors {

struct AdapterCacheSetup {
  ServerOptions options;
  std::function<std::unique_ptr<AdapterSource>(AdapterSource::Callbacks)> make_source;
};

AdapterCacheActor::behavior_type adapter_cache(AdapterCacheActor::pointer self, AdapterCacheSetup setup);

}  // namespace lorikeet::actors
