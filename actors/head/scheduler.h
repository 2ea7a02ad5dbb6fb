// The actor around the serving core (actors/head/serving_core.h): it hands the core what it hears, and carries out what
// the core wants.
//
// Receives
//   from the gateway:        Submit, Finish. Answers with EngineEvents.
//   from ranks:              Hello -> Welcome; Envelope (GroupReport, engine::StepResult)
//   from the head's thread:  Serve (clients may come), SupervisorSaid (NewEpoch)
//   StatusQuery -> ServingStatus
// Asks the adapter cache: ResolveAdapter, AcquireSlot; tells it UnclaimAdapter, ReleaseSlot, GroupFormed, GroupLost.
// Tells the ranks: GroupOrder, engine::StepPlan. Tells the supervisor: Progress, Ready, GroupLost. Thread: CAF's.
// Owns: the core, the ranks' handles, their unfinished messages, the rendezvous store.
//
// Its states are those of the core's group: starting, forming, serving, lost.
#pragma once

#include <caf/all.hpp>
#include <functional>
#include <optional>
#include <string>

#include "actors/head/messages.h"
#include "actors/wire/options.h"
#include "actors/wire/step_pace.h"

namespace lorikeet::actors {

struct SchedulerSetup {
  ServerOptions options;
  int32_t max_model_len = 0;
  int32_t vocab_size = 0;
  model::StepCost step_cost{};  // of a rank's steps
  uint64_t first_epoch = 1;
  AdapterCacheActor cache;
  // The rank whose connection a node is at the other end of; empty: nobody is asked, since there are no connections.
  std::function<std::optional<int32_t>(const caf::node_id&)> rank_of;
  std::function<void(const ChildReport&)> to_supervisor;
};

SchedulerActor::behavior_type scheduler(SchedulerActor::pointer self, SchedulerSetup setup);

}  // namespace lorikeet::actors
