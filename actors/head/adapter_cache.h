// The directory of adapters as an actor: it reads each once, sends its slices to the ranks, and knows who holds what.
//
// Receives
//   from the scheduler: ResolveAdapter -> AdapterResolved, UnclaimAdapter, AcquireSlot -> SlotAcquired, ReleaseSlot,
//                       GroupFormed, GroupLost
//   from the gateway:   ChangeAdapter -> AdapterChanged
//   from ranks:         Envelope (AdapterReport)
//   from its threads:   AdapterSource::Checked, AdapterSource::Staged, AdapterSource::Located, FactorsMade
//   StatusQuery -> AdaptersStatus, from what it knows: no disk is asked
// Owns: the tables of adapters with their claims and leases, the names, the staged host copies, the transfers under way.
// Thread: CAF's; disks and DoRA's arithmetic have threads of their own (AdapterReader).
//
//            GroupFormed
//   staging ------------> sending            staging: adapters are read, requests for slots wait
//      ^                     |
//      `---------------------' GroupLost     sending: slots are filled and given
//
// The states of one adapter are in host_adapters.h and adapter_slots.h, those of its way to the ranks in
// adapter_transfer.h.
#pragma once

#include <caf/all.hpp>
#include <functional>
#include <memory>

#include "actors/head/adapter_names.h"
#include "actors/head/messages.h"
#include "actors/head/name_journal.h"
#include "actors/wire/descriptor_channel.h"
#include "actors/wire/options.h"

namespace lorikeet::actors {

struct AdapterCacheSetup {
  ServerOptions options;
  AdapterNames names;                                      // begins with those of the options
  std::shared_ptr<NameJournal> journal{};                  // of the heads of this server; null: there is none
  std::shared_ptr<const DescriptorSenders> descriptors{};  // to ranks of this host; null: slices travel as bytes
  std::function<std::unique_ptr<AdapterSource>(AdapterSource::Callbacks)> make_source;
};

AdapterCacheActor::behavior_type adapter_cache(AdapterCacheActor::pointer self, AdapterCacheSetup setup);

}  // namespace lorikeet::actors
