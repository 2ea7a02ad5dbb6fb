// The key-value store through which the ranks of one epoch find each other, as an actor in the head, and the ranks'
// view of it.
//
// Receives StorePut -> bool (false: the store is full), StoreGet -> StoreValue, as soon as the key is there.
// Owns: the values of one epoch; a new epoch has a new store. Thread: CAF's.
//
//   one state: serving
#pragma once

#include <caf/all.hpp>
#include <memory>

#include "actors/wire/messages.h"
#include "comm/collective/rendezvous.h"

namespace lorikeet::actors {

RendezvousActor::behavior_type rendezvous_store(RendezvousActor::pointer self);

// Threads: any, once at a time.
std::unique_ptr<comm::Rendezvous> make_actor_rendezvous(caf::actor_system& system, RendezvousActor store);

}  // namespace lorikeet::actors
