// The actors' messages and interfaces. What CAF renames after 0.17 (inspect, replies_to, atoms) appears in this header
// and in actors/system_config.* alone.
//
// Three sorts of messages:
//  - between processes: Hello, Welcome, Envelope, StorePut, StoreGet, StoreValue. Registered, integers and bytes only
//    (a float field hangs CAF's writer on infinity).
//  - inside a process: structs that hold whatever they need. They have no type id, so nothing from outside can be read
//    as one of them.
//  - requests for a snapshot: StatusQuery, answered with StatusPart.
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/head/adapter_outcome.h"
#include "actors/head/adapter_reader.h"
#include "actors/head/request_validation.h"
#include "actors/wire/control_message.h"
#include "actors/wire/envelope.h"
#include "actors/wire/wire.h"
#include "comm/client/client_messages.h"
#include "engine/engine.h"

namespace lorikeet::actors {

class RankAdapters;

// ---- between processes

// A rank's first words to the head.
struct Hello {
  int32_t rank = 0;
  int32_t pid = 0;
  uint64_t epoch = 0;
  std::string secret;  // from the supervisor: a stranger on the port is not a rank
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
  std::string refused;  // not empty: why the rank is not wanted; the handles are then void
  CacheForRanks cache;
  RendezvousActor rendezvous;
};
using SchedulerForRanks =
    caf::typed_actor<caf::replies_to<Hello, WorkerForHead>::with<Welcome>, caf::reacts_to<Envelope>>;

// ---- snapshots, inside a process

struct StatusQuery {
  int32_t unused = 0;
};
struct StatusPart {
  std::string json;  // one object; the gateway merges the parts
};

// ---- inside the head

struct ClientSaid {  // ZeroMQ thread -> gateway
  uint64_t client = 0;
  std::shared_ptr<comm::ClientMessage> message;
};
struct ClientGone {
  uint64_t client = 0;
};
struct StopServing {  // head's main thread -> gateway
  std::string why;
};

struct PrepareText {  // gateway -> text preparer: a request with a long text
  std::shared_ptr<const comm::GenerateRequest> request;
  uint64_t seed = 0;  // drawn for it
};
struct TextPrepared {  // the answer
  std::shared_ptr<PreparationResult> result;
};

struct Submit {                              // gateway -> scheduler
  std::shared_ptr<engine::Request> request;  // its adapter is still a name; the scheduler has it resolved
};
struct Finish {
  engine::SequenceId id;
  engine::FinishReason reason = engine::FinishReason::abort;
};
struct EngineEvents {  // scheduler -> gateway, in order
  std::shared_ptr<std::vector<engine::Event>> events;
};
using GatewayActor = caf::typed_actor<caf::reacts_to<ClientSaid>, caf::reacts_to<ClientGone>,
                                      caf::reacts_to<EngineEvents>, caf::reacts_to<StopServing>>;
using TextPreparerActor = caf::typed_actor<caf::replies_to<PrepareText>::with<TextPrepared>>;
struct Serve {  // head's main thread -> scheduler: clients can reach the gateway from now on
  GatewayActor gateway;
  std::string address;
};

struct ResolveAdapter {  // scheduler -> adapter cache: read it if need be and keep its content for this request
  engine::SequenceId id;
  std::string name;
};
struct AdapterResolved {  // the answer
  std::string digest;
  std::string error;  // not empty: why there is no digest
};
struct UnclaimAdapter {  // the request is over
  engine::SequenceId id;
  AdapterOutcome outcome = AdapterOutcome::none;
};
struct AcquireSlot {  // scheduler -> adapter cache: put it on the ranks if need be and leave it there
  engine::SequenceId id;
  std::string digest;
};
struct SlotAcquired {  // the answer
  engine::SlotId slot;
  std::string error;
  uint64_t epoch = 0;  // of the ranks that have the slot; with their group a lease is void
};
struct ReleaseSlot {
  engine::SequenceId id;
  std::string digest;
};
struct GroupFormed {  // scheduler -> adapter cache
  uint64_t epoch = 0;
  std::vector<WorkerForHead> workers;  // by rank
};
struct GroupLost {
  uint64_t epoch = 0;
};

struct FactorsMade {  // the adapter reader's threads -> adapter cache
  uint64_t transfer = 0;
  std::vector<DoraValues> factors;  // by rank
  std::string error;
};

struct SupervisorSaid {  // the head's control thread -> scheduler
  ControlMessage message;
};

// ---- inside a rank

struct RankFormed {  // the rank's thread -> worker
  std::shared_ptr<RankAdapters> adapters;
};

// ---- inside the supervisor

struct ChildSaid {  // process keeper -> supervisor
  uint64_t child = 0;
  ControlMessage message;
};
struct ChildExited {
  uint64_t child = 0;
  std::string how;          // "exited with status 1", "was killed by signal 9"
  bool on_purpose = false;  // we killed it while it lived
};
struct StopServer {};

struct Tick {};

// ---- the interfaces

using AdapterCacheActor = CacheForRanks::extend<
    caf::replies_to<ResolveAdapter>::with<AdapterResolved>, caf::reacts_to<UnclaimAdapter>,
    caf::replies_to<AcquireSlot>::with<SlotAcquired>, caf::reacts_to<ReleaseSlot>, caf::reacts_to<GroupFormed>,
    caf::reacts_to<GroupLost>, caf::reacts_to<AdapterSource::Checked>, caf::reacts_to<AdapterSource::Staged>,
    caf::reacts_to<FactorsMade>, caf::reacts_to<Tick>, caf::replies_to<StatusQuery>::with<StatusPart>>;

using SchedulerActor = SchedulerForRanks::extend<caf::reacts_to<Serve>, caf::reacts_to<Submit>, caf::reacts_to<Finish>,
                                                 caf::reacts_to<SupervisorSaid>, caf::reacts_to<Tick>,
                                                 caf::replies_to<StatusQuery>::with<StatusPart>>;

using WorkerActor = WorkerForHead::extend<caf::reacts_to<RankFormed>, caf::reacts_to<Tick>>;

using SupervisorActor = caf::typed_actor<caf::reacts_to<ChildSaid>, caf::reacts_to<ChildExited>,
                                         caf::reacts_to<StopServer>, caf::reacts_to<Tick>>;

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, Envelope& x) {
  return f(caf::meta::type_name("Envelope"), x.kind, x.rank, x.epoch, x.step, x.last, x.bytes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, Hello& x) {
  return f(caf::meta::type_name("Hello"), x.rank, x.pid, x.epoch, x.secret, x.host, x.device);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, Welcome& x) {
  return f(caf::meta::type_name("Welcome"), x.refused, x.cache, x.rendezvous);
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

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StatusQuery)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StatusPart)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ClientSaid)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ClientGone)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StopServing)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::PrepareText)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::TextPrepared)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Submit)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Finish)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::EngineEvents)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ResolveAdapter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterResolved)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::UnclaimAdapter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AcquireSlot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::SlotAcquired)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ReleaseSlot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::GroupFormed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::GroupLost)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterSource::Checked)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterSource::Staged)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::FactorsMade)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Serve)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::SupervisorSaid)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::RankFormed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ChildSaid)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ChildExited)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StopServer)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Tick)
