// The head's rendezvous store (actors/head/rendezvous_store.h) as the collectives see it.
#pragma once

#include <caf/all.hpp>
#include <memory>

#include "actors/wire/messages.h"
#include "comm/collective/rendezvous.h"

namespace lorikeet::actors {

// Throws CollectiveError where the store does not answer in time or has no room. Threads: any, once at a time.
std::unique_ptr<comm::Rendezvous> make_actor_rendezvous(caf::actor_system& system, RendezvousActor store);

}  // namespace lorikeet::actors
