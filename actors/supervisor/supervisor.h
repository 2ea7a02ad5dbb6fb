// The actor around Supervision (actors/supervisor/supervision.h), which decides: this hands it messages and the time. Its
// states are drawn there.
//
// Receives
//   from the process keeper: ChildSaid (a ChildReport), ChildExited
//   from the server object:  StopServer
//   from itself:             Tick, with every beat
// Tells the children, through the keeper, ChildOrder. Tells its caller: progress, ready, stopped, failure. Thread: CAF's.
#pragma once

#include <caf/all.hpp>
#include <functional>
#include <string>

#include "actors/supervisor/messages.h"
#include "actors/supervisor/process_keeper.h"
#include "actors/wire/options.h"

namespace lorikeet::actors {

struct SupervisorSetup {
  ServerOptions options;
  Processes* processes = nullptr;  // outlives the actor
  // Called on the actor's thread.
  std::function<void(const std::string&)> progress;
  std::function<void(int32_t rank, int32_t done, int32_t total)> loading;  // layers
  std::function<void(const control::Ready&)> ready;                        // once
  std::function<void(int status)> stopped;                                 // once; all children are dead
  std::function<void(const std::string&)> failure;                         // what went wrong, as a sentence
};

SupervisorActor::behavior_type supervisor(SupervisorActor::pointer self, SupervisorSetup setup);

}  // namespace lorikeet::actors
