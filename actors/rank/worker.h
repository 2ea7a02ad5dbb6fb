// The actor in front of a rank's threads: it answers while a step runs or hangs, and does nothing that takes time.
//
// Receives from the head: Envelope (GroupOrder, engine::StepPlan, AdapterOrder). Sends the head Hello -> Welcome, once.
//   The rank's threads themselves report to the scheduler and the adapter cache.
// Owns: the rank's threads (RankThread, RankAdapters). Thread: CAF's.
//
//              connect, hello               FormGroup, plans, adapters ...
//   connecting -------------> serving ------------------------------------> serving
//       |                     ^  |  LeaveGroup: the thread leaves the collectives of the lost epoch
//       |               hello |  v
//       |                    leaving
//       |                        |
//       | refused, no answer     | the head is lost, or a step takes longer than it may
//       `----------------------> fatal (the process ends; the supervisor starts a new epoch)
#pragma once

#include <caf/all.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "actors/rank/messages.h"
#include "actors/rank/rank_backend.h"
#include "actors/wire/control_message.h"
#include "actors/wire/descriptor_channel.h"
#include "model/grammar/grammar_source.h"

namespace lorikeet::actors {

struct WorkerSetup {
  ChildStart start;
  std::shared_ptr<RankBackend> backend;
  std::function<void(int done, int total)> loading;  // layers; any thread
  std::function<void(const std::string&)> fatal;     // any thread; ends the process
  int head = -1;                                     // the connection to the head, which the actor takes over; or
  SchedulerForRanks scheduler;                       // the head's scheduler itself
  // As `fatal`, for a step of this rank that does not end.
  std::function<void(const std::string&)> hung;
  std::shared_ptr<model::GrammarSource> grammars;             // may be null
  int32_t vocab_size = 0;                                     // that they are compiled for
  std::shared_ptr<DescriptorReceiver> descriptors = nullptr;  // null: there is none, or nobody at its other end
  std::function<void(uint64_t epoch)> left;  // any thread: nothing is done any more for epochs before this one
};

WorkerActor::behavior_type worker(WorkerActor::pointer self, WorkerSetup setup);

}  // namespace lorikeet::actors
