#include "actors/head/throughput_log.h"

#include <chrono>
#include <utility>

namespace lorikeet::actors {
namespace {

constexpr std::chrono::seconds kInterval{10};

struct Looked {
  ServingStatus status;
  std::chrono::steady_clock::time_point at = std::chrono::steady_clock::now();
};

}  // namespace

ThroughputLogActor::behavior_type throughput_log(ThroughputLogActor::pointer self, SchedulerActor scheduler,
                                                 std::shared_ptr<RequestLog> log) {
  auto last = std::make_shared<Looked>();
  self->delayed_send(caf::actor_cast<ThroughputLogActor>(self), kInterval, Tick{});
  return {[self, scheduler, log, last](Tick) {
    self->delayed_send(caf::actor_cast<ThroughputLogActor>(self), kInterval, Tick{});
    self->request(scheduler, kInterval, StatusQuery{})
        .then(
            [log, last](ServingStatus& status) {
              Looked now;
              now.status = std::move(status);
              log->throughput(throughput_line(last->status, now.status, now.at - last->at));
              *last = std::move(now);
            },
            [](const caf::error&) {});  // too busy to answer: no line this time
  }};
}

}  // namespace lorikeet::actors
