#include "actors/supervisor/supervisor.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "actors/supervisor/supervision.h"

namespace lorikeet::actors {
namespace {

class Supervisor {
 public:
  Supervisor(SupervisorActor::pointer self, SupervisorSetup setup)
      : self_(self),
        tick_(std::min(setup.options.heartbeat_ms, 500)),
        decides_(setup.options, *setup.processes,
                 {std::move(setup.progress), std::move(setup.loading), std::move(setup.ready), std::move(setup.stopped),
                  std::move(setup.failure)}) {
    decides_.start(now());
    wait_for_tick();
  }

  void said(ChildSaid& said) { decides_.said(said.child, said.report, now()); }
  void exited(const ChildExited& exited) {
    decides_.exited(exited.child, exited.how, exited.on_purpose, exited.signal, now());
  }
  void stop() { decides_.stop(now()); }
  void tick() {
    decides_.tick(now());
    wait_for_tick();
  }

 private:
  Supervision::TimePoint now() const { return self_->clock().now(); }
  void wait_for_tick() { self_->delayed_send(caf::actor_cast<SupervisorActor>(self_), tick_, Tick{}); }

  SupervisorActor::pointer self_;
  const std::chrono::milliseconds tick_;
  Supervision decides_;
};

}  // namespace

SupervisorActor::behavior_type supervisor(SupervisorActor::pointer self, SupervisorSetup setup) {
  auto state = std::make_shared<Supervisor>(self, std::move(setup));
  return {[state](ChildSaid& said) { state->said(said); },
          [state](const ChildExited& exited) { state->exited(exited); }, [state](StopServer) { state->stop(); },
          [state](Tick) { state->tick(); }};
}

}  // namespace lorikeet::actors
