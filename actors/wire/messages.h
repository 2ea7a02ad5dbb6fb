// What the actors of different processes say to each other: registered types, of integers and bytes only (a float field
// hangs CAF's writer on infinity). What goes on inside of one process is in the messages.h of its room: it has no type
// id, so that nothing from a socket can be read as one of them.
//
// What CAF renames after 0.17 (inspect, replies_to, atoms) appears in the rooms' messages.h and in
// actors/wire/system_config.* alone.
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "actors/wire/envelope.h"

namespace lorikeet::actors {

// A rank's first words to the head.
struct Hello {
  int32_t rank = 0;
  int32_t pid = 0;
  uint64_t epoch = 0;
  std::string host;
  std::string device;
};

struct StorePut {
  std::string key;
  std::vector<uint8_t> value;
};
struct StoreGet {
  std::string key;
};
struct StoreValue {
  std::vector<uint8_t> value;
};

// What a rank is to the head, and the head's actors are to a rank.
using WorkerForHead = caf::typed_actor<caf::reacts_to<Envelope>>;
using CacheForRanks = caf::typed_actor<caf::reacts_to<Envelope>>;
using RendezvousActor =
    caf::typed_actor<caf::replies_to<StorePut>::with<bool>, caf::replies_to<StoreGet>::with<StoreValue>>;

struct Welcome {
  std::string refused;  // not empty: why the rank is not admitted; the handles are then void
  bool later = false;   // it may be admitted soon: the head does not know of its epoch yet, or the rank of the next
  CacheForRanks cache;
  RendezvousActor rendezvous;
};
using SchedulerForRanks =
    caf::typed_actor<caf::replies_to<Hello, WorkerForHead>::with<Welcome>, caf::reacts_to<Envelope>>;

// An actor's message to itself, for what it checks again and again. Inside a process.
struct Tick {};

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, Envelope& x) {
  return f(caf::meta::type_name("Envelope"), x.stream, x.rank, x.epoch, x.step, x.last, x.bytes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, Hello& x) {
  return f(caf::meta::type_name("Hello"), x.rank, x.pid, x.epoch, x.host, x.device);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, Welcome& x) {
  return f(caf::meta::type_name("Welcome"), x.refused, x.later, x.cache, x.rendezvous);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, StorePut& x) {
  return f(caf::meta::type_name("StorePut"), x.key, x.value);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, StoreGet& x) {
  return f(caf::meta::type_name("StoreGet"), x.key);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, StoreValue& x) {
  return f(caf::meta::type_name("StoreValue"), x.value);
}

}  // namespace lorikeet::actors

CAF_BEGIN_TYPE_ID_BLOCK(lorikeet, caf::first_custom_type_id)
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::Envelope))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::Hello))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::Welcome))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::StorePut))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::StoreGet))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::StoreValue))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::WorkerForHead))
CAF_ADD_TYPE_ID(lorikeet, (lorikeet::actors::RendezvousActor))
CAF_END_TYPE_ID_BLOCK(lorikeet)

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Tick)
