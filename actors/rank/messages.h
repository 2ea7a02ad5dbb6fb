// What the worker hears inside of its process, from the rank's threads. No type ids: see actors/wire/messages.h.
#pragma once

#include <caf/all.hpp>
#include <memory>

#include "actors/wire/messages.h"

namespace lorikeet::actors {

class RankAdapters;

struct RankFormed {  // the rank's thread -> worker
  std::shared_ptr<RankAdapters> adapters;
};

using WorkerActor = WorkerForHead::extend<caf::reacts_to<RankFormed>, caf::reacts_to<Tick>>;

}  // namespace lorikeet::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::RankFormed)
