// The actor that keeps the server's processes alive: it decides what is started, what is killed, and when to give up.
//
// Receives
//   from the process keeper: ChildSaid (AwaitsRanks, Progress, Failed, Ready, GroupLost), ChildExited
//   from the server object:  StopServer
// Tells the head: NewEpoch, Stop. Tells its caller: progress, ready, stopped. Owns: the list of children and the count
// of epochs. Thread: CAF's.
//
//             AwaitsRanks: they are started          ready
//   starting -----------------------------> loading -------> serving
//                                            |  ^              |
//        lost before the first `ready`, or   |  |              | lose_group(): a rank died, or the head gave the group
//        the third time in a row without one |  | all ranks    | up; lose_head(). The ranks are killed.
//                                            |  | are dead     v
//                                            |  `---------- losing       the epoch counts on
//                                            v                 |
//                        stopped <------- stopping <-----------'         StopServer, in any state: the head answers
//                                                                        everything and ends, then the ranks are killed
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
};

SupervisorActor::behavior_type supervisor(SupervisorActor::pointer self, SupervisorSetup setup);

}  // namespace lorikeet::actors
