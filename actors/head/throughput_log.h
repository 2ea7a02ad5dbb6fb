// The actor that logs the server's throughput every ten seconds while it is not idle.
//
// Receives Tick, from itself. Asks the scheduler: StatusQuery. Owns: what the scheduler said last. Thread: CAF's.
//
//   one state: looking
#pragma once

#include <caf/all.hpp>
#include <memory>

#include "actors/head/messages.h"
#include "actors/head/request_log.h"

namespace lorikeet::actors {

using ThroughputLogActor = caf::typed_actor<caf::reacts_to<Tick>>;

ThroughputLogActor::behavior_type throughput_log(ThroughputLogActor::pointer self, SchedulerActor scheduler,
                                                 std::shared_ptr<RequestLog> log);

}  // namespace lorikeet::actors
