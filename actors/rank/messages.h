// What the worker hears inside of its process, from the rank's threads. No type ids: see actors/wire/messages.h.
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <memory>

#include "actors/wire/messages.h"

namespace lorikeet::actors {

class RankAdapters;

struct RankFormed {  // the rank's thread -> worker
  uint64_t epoch = 0;
  std::shared_ptr<RankAdapters> adapters;
};

struct LeaveGroup {  // the control thread -> worker: the group is lost, this rank belongs to `epoch` from now on
  uint64_t epoch = 0;
};
struct GroupLeft {  // the rank's thread -> worker: nothing of an epoch before this one is done any more
  uint64_t epoch = 0;
};

using WorkerActor = WorkerForHead::extend<caf::reacts_to<RankFormed>, caf::reacts_to<LeaveGroup>,
                                          caf::reacts_to<GroupLeft>, caf::reacts_to<Tick>>;

}  // namespace lorikeet::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::RankFormed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::LeaveGroup)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::GroupLeft)
