// The key-value store through which the ranks of one epoch find each other, as an actor. The ranks' view of it is
// actors/rank/actor_rendezvous.h.
//
// Receives StorePut -> bool (false: the store is full), StoreGet -> StoreValue, as soon as the key is there, or an error
// when the store ends: then the epoch is over, and whoever waits for a rank of it can leave.
// Owns: the values of one epoch; a new epoch has a new store. Thread: CAF's.
//
//   one state: serving
#pragma once

#include <caf/all.hpp>

#include "actors/wire/messages.h"

namespace lorikeet::actors {

RendezvousActor::behavior_type rendezvous_store(RendezvousActor::pointer self);

}  // namespace lorikeet::actors
