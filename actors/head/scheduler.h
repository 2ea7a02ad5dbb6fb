// The actor around the serving logic: it owns every sequence, KV block and lease (in engine::Engine), the group's state
// and the plans in flight, so that nothing needs a lock.
//
// Receives
//   from the gateway:        Submit, Finish. Answers with EngineEvents.
//   from ranks:              Hello -> Welcome; Envelope (GroupReport, engine::StepResult)
//   from the head's thread:  Serve (clients may come), SupervisorSaid (NewEpoch)
//   StatusQuery -> ServingStatus
// Asks the adapter cache: ResolveAdapter, AcquireSlot; tells it UnclaimAdapter, ReleaseSlot, GroupFormed, GroupLost.
// Tells the ranks: GroupOrder, engine::StepPlan. Tells the supervisor: Progress, Ready, GroupLost. Thread: CAF's.
//
// The group's states, one method per step between them:
//
//             hello, loaded of all           ready of all
//   starting ----------------------> forming ------------> serving
//      ^                                |                     |
//      |                                | lose_group(): a rank died, hangs, disagrees, or could not compute
//      |   NewEpoch                     v                     v
//      `------------------------------ lost <-----------------'
//
// While the group is not serving, requests that arrive are held and start with the next epoch; those that the engine
// already had fail with rank_lost.
#pragma once

#include <caf/all.hpp>
#include <functional>
#include <string>

#include "actors/head/messages.h"
#include "actors/wire/options.h"

namespace lorikeet::actors {

struct SchedulerSetup {
  ServerOptions options;
  int32_t max_model_len = 0;
  uint64_t first_epoch = 1;
  std::string secret;  // of the ranks' hello
  AdapterCacheActor cache;
  std::function<void(const ChildReport&)> to_supervisor;
};

SchedulerActor::behavior_type scheduler(SchedulerActor::pointer self, SchedulerSetup setup);

}  // namespace lorikeet::actors
