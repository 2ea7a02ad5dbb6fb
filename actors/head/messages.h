// What the actors inside of the head say to each other. No type ids: see actors/wire/messages.h.
#pragma once

#include <atomic>
#include <caf/all.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/head/access.h"
#include "actors/head/adapter_outcome.h"
#include "actors/head/adapter_reader.h"
#include "actors/head/request_validation.h"
#include "actors/head/started_request.h"
#include "actors/wire/control_message.h"
#include "actors/wire/messages.h"
#include "actors/wire/server_status.h"
#include "actors/wire/wire.h"
#include "comm/client/client_messages.h"
#include "engine/engine.h"

namespace lorikeet::actors {

// ---- snapshots: the scheduler answers with a ServingStatus, the adapter cache with an AdaptersStatus

struct StatusQuery {
  bool brief = false;  // as comm::StatusRequest has it
};

// ---- to every actor without which the head is useless: an answer shows that it is not stuck

struct Pulse {
  int32_t unused = 0;
};

// ---- clients and requests

struct ClientSaid {  // ZeroMQ thread, HTTP door -> gateway
  uint64_t client = 0;
  std::shared_ptr<comm::ClientMessage> message;
  std::shared_ptr<const Grant> grant{};  // what it may do; null: everything
  bool is_counted = false;               // part of an exchange that the tenant's limit has counted already
};
struct ClientGone {
  uint64_t client = 0;
  bool left = true;  // false: its door has answered it, since another of its requests has failed
};
struct StopServing {  // head's main thread -> gateway
  std::string why;
};

struct Drain {  // head's main thread -> gateway: take no new requests; answered when none is left
  std::string why;
  bool serves = true;  // false: no group has ever served, so waiting requests are not waited for
};

struct PrepareText {  // gateway -> text preparer: a request with a long text
  std::shared_ptr<const comm::GenerateRequest> request;
  uint64_t seed = 0;                                // drawn for it
  std::shared_ptr<const std::atomic<bool>> wanted;  // false: cancelled meanwhile, the answer does not matter
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
struct ResetPrefixCache {  // HTTP door -> scheduler: later requests reuse nothing that was computed before
  int32_t unused = 0;
};
struct EngineEvents {  // scheduler -> gateway, in order
  std::shared_ptr<std::vector<engine::Event>> events;
  std::shared_ptr<const std::vector<StartedRequest>> started = nullptr;  // before them; null: none
};
using GatewayActor =
    caf::typed_actor<caf::reacts_to<ClientSaid>, caf::reacts_to<ClientGone>, caf::reacts_to<EngineEvents>,
                     caf::reacts_to<StopServing>, caf::replies_to<Drain>::with<bool>, caf::reacts_to<Tick>,
                     caf::replies_to<Pulse>::with<bool>>;
using TextPreparerActor = caf::typed_actor<caf::replies_to<PrepareText>::with<TextPrepared>>;
struct Serve {  // head's main thread -> scheduler: clients can reach the gateway from now on
  GatewayActor gateway;
  std::string address;
};

// ---- adapters

struct ResolveAdapter {  // scheduler -> adapter cache: read it if need be and keep its content for this request
  engine::SequenceId id;
  std::string name;
};
struct AdapterResolved {  // the answer
  std::string digest;
  std::string error;     // not empty: why there is no digest
  bool unknown = false;  // there is no such name any more
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
  uint64_t epoch = 0;         // of the ranks that have the slot; the lease ends with their group
  bool ranks_failed = false;  // the error is not the adapter's: the ranks do not take what they are sent
};
struct ReleaseSlot {
  engine::SequenceId id;
  std::string digest;
};
struct GiveWay {  // adapter cache -> scheduler: others wait for the content's slot, or no longer do
  uint64_t epoch = 0;
  std::string digest;
  bool wanted = false;
};
struct ChangeAdapter {  // gateway -> adapter cache: a client wants other adapters, or one elsewhere
  std::shared_ptr<const comm::AdapterRequest> request;
};
struct AdapterChanged {  // the answer
  std::string message;
  std::string code;  // of comm::Failure; empty: it is done
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

// ---- the supervisor

struct SupervisorSaid {  // the head's control thread -> scheduler
  control::NewEpoch order;
};

// ---- the interfaces

using AdapterCacheActor =
    CacheForRanks::extend<caf::replies_to<ResolveAdapter>::with<AdapterResolved>, caf::reacts_to<UnclaimAdapter>,
                          caf::replies_to<AcquireSlot>::with<SlotAcquired>, caf::reacts_to<ReleaseSlot>,
                          caf::reacts_to<GroupFormed>, caf::reacts_to<GroupLost>,
                          caf::reacts_to<AdapterSource::Checked>, caf::reacts_to<AdapterSource::Staged>,
                          caf::reacts_to<AdapterSource::Located>, caf::replies_to<ChangeAdapter>::with<AdapterChanged>,
                          caf::reacts_to<FactorsMade>, caf::reacts_to<Tick>,
                          caf::replies_to<StatusQuery>::with<AdaptersStatus>, caf::replies_to<Pulse>::with<bool>>;

using SchedulerActor =
    SchedulerForRanks::extend<caf::reacts_to<Serve>, caf::reacts_to<Submit>, caf::reacts_to<Finish>,
                              caf::reacts_to<GiveWay>, caf::replies_to<ResetPrefixCache>::with<bool>,
                              caf::reacts_to<SupervisorSaid>, caf::reacts_to<Tick>,
                              caf::replies_to<StatusQuery>::with<ServingStatus>, caf::replies_to<Pulse>::with<bool>>;

}  // namespace lorikeet::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StatusQuery)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Pulse)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ServingStatus)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdaptersStatus)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ClientSaid)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ClientGone)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StopServing)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Drain)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::PrepareText)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::TextPrepared)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Submit)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Finish)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ResetPrefixCache)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::EngineEvents)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ResolveAdapter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterResolved)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::UnclaimAdapter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AcquireSlot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::SlotAcquired)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ReleaseSlot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::GiveWay)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::GroupFormed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::GroupLost)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterSource::Checked)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterSource::Staged)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterSource::Located)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ChangeAdapter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::AdapterChanged)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::FactorsMade)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::Serve)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::SupervisorSaid)
