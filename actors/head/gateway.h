// The actor between clients and the scheduler: text exists here only. It checks requests, turns them into ids, turns
// ids back into text, and gives every request exactly one final answer.
//
// Receives
//   from the ZeroMQ thread: ClientSaid (generate, cancel, status, adapter), ClientGone
//   from the scheduler:     EngineEvents
//   from the head's thread: Drain (answered when no request is left), StopServing
//   from itself: Tick, where requests have a deadline
// Tells the scheduler: Submit, Finish. Asks the text preparer: PrepareText (it prepares short texts itself); the scheduler:
//   StatusQuery; the adapter cache: StatusQuery, ChangeAdapter. Answers clients through GatewaySetup::answer.
// Owns: the requests between admission and final answer (LiveRequests). Thread: CAF's.
//
//            ClientSaid ...          StopServing: everything is answered with shutting_down
//   serving -------------> serving -------------> (the actor ends)
//      |  Drain                           ^
//      +-------> draining: new requests are refused, the others go on
#pragma once

#include <caf/all.hpp>
#include <chrono>
#include <functional>
#include <memory>

#include "actors/head/messages.h"
#include "actors/head/request_log.h"
#include "actors/head/request_metrics.h"
#include "actors/head/request_validation.h"
#include "comm/client/client_messages.h"

namespace lorikeet::actors {

struct GatewaySetup {
  std::shared_ptr<const RequestValidation> validation;
  SchedulerActor scheduler;
  AdapterCacheActor cache;
  TextPreparerActor text_preparer;
  size_t short_text_bytes = 16 << 10;  // up to here a text is tokenized in less time than a message takes
  size_t max_long_texts = 4096;        // with the text preparer at the same time; past it requests are refused
  size_t max_long_bytes = 512 << 20;   // the same, of memory that these requests take
  std::function<void(uint64_t client, comm::ServerMessage)> answer;
  std::shared_ptr<RequestMetrics> metrics;  // counts what happens; null: nobody asks
  // True for clients of a door that joins the answers of several requests and counts the whole itself; empty: for none.
  std::function<bool(uint64_t client)> is_counted_by_its_door;
  std::shared_ptr<RequestLog> log;               // of requests that have ended; null: there is none
  std::vector<TenantOptions> tenants;            // those that have limits
  std::chrono::milliseconds request_timeout{0};  // from arrival to the end; a request may ask for less; 0: none
  uint64_t seed = 0;                             // from which requests without a seed get theirs; 0: the system's
  std::string model_name;                        // for the status
  int32_t supervisor_pid = 0;
};

GatewayActor::behavior_type gateway(GatewayActor::pointer self, GatewaySetup setup);

}  // namespace lorikeet::actors
