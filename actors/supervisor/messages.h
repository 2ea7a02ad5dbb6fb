// What the supervisor hears inside of its process. No type ids: see actors/wire/messages.h.
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <string>

#include "actors/wire/control_message.h"
#include "actors/wire/messages.h"

namespace lorikeet::actors {

struct ChildSaid {  // process keeper -> supervisor
  uint64_t child = 0;
  ChildReport report;
};
struct ChildExited {
  uint64_t child = 0;
  std::string how;          // "exited with status 1", "was killed by signal 9"
  bool on_purpose = false;  // we killed it while it lived
  int signal = 0;           // that ended it; 0: none did
};
struct StopServer {};

using SupervisorActor = caf::typed_actor<caf::reacts_to<ChildSaid>, caf::reacts_to<ChildExited>,
                                         caf::reacts_to<StopServer>, caf::reacts_to<Tick>>;

}  // namespace lorikeet::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ChildSaid)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::ChildExited)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(lorikeet::actors::StopServer)
