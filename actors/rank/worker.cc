#include "actors/rank/worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <set>
#include <utility>
#include <variant>

#include "actors/rank/actor_rendezvous.h"
#include "actors/rank/rank_adapters.h"
#include "actors/rank/rank_thread.h"
#include "actors/wire/caf_connection.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kConnectTimeout{10'000};
constexpr milliseconds kHelloTimeout{10'000};

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

class Worker {
 public:
  Worker(WorkerActor::pointer self, WorkerSetup setup) : self_(self), setup_(std::move(setup)) {
    self_->set_down_handler([this](const caf::down_msg& down) { head_lost(down); });
    if (setup_.scheduler) {
      say_hello(setup_.scheduler);
    } else {
      connect();
    }
  }

  void take(Envelope& envelope) {
    if (envelope.epoch != setup_.start.epoch || !thread_) return;
    if (envelope.stream == EnvelopeStream::adapters) {
      if (adapters_) adapters_->take(std::move(envelope));
      return;
    }
    const bool is_plan = envelope.stream == EnvelopeStream::steps;
    auto bytes = assembler_.add(std::move(envelope));
    if (!bytes) return fatal(bytes.error().message);
    if (!*bytes) return;
    if (const auto ok = is_plan ? thread_->plan(**std::move(bytes)) : perform(**bytes); !ok) fatal(ok.error().message);
  }

  void formed(RankFormed& formed) { adapters_ = std::move(formed.adapters); }

  // The watchdog: a handler that hangs cannot be ended from outside, the process can.
  void watch() {
    const milliseconds limit(setup_.start.options.rank_timeout_ms);
    const auto age = thread_ ? thread_->step_age() : std::nullopt;
    if (age && *age > limit) {
      return setup_.hung(fmt::format("step {} has not ended in {} ms", thread_->steps_finished() + 1, limit.count()));
    }
    self_->delayed_send(caf::actor_cast<WorkerActor>(self_), limit / 4, Tick{});
  }

 private:
  // ---- connecting

  void connect() {
    self_
        ->request(basp_broker(self_->system()), kConnectTimeout, caf::connect_atom_v,
                  make_scribe(self_->system(), Descriptor(setup_.head)), uint16_t{1})
        .then(
            [this](const caf::node_id&, caf::strong_actor_ptr& head, const std::set<std::string>&) {
              if (!head) return fatal("the head offers nothing");
              say_hello(caf::actor_cast<SchedulerForRanks>(head));
            },
            [this](caf::error& error) { fatal("the head cannot be reached: " + self_->system().render(error)); });
  }

  void say_hello(const SchedulerForRanks& scheduler) {
    const ChildStart& start = setup_.start;
    Hello hello{start.rank, getpid(), start.epoch, host_name(), start.options.device};
    self_->request(scheduler, kHelloTimeout, std::move(hello), WorkerForHead(caf::actor_cast<WorkerForHead>(self_)))
        .then([this, scheduler](Welcome& welcome) { serve(scheduler, welcome); },
              [this](caf::error& error) { fatal("the head does not answer: " + self_->system().render(error)); });
  }

  // ---- serving

  void serve(const SchedulerForRanks& scheduler, Welcome& welcome) {
    if (!welcome.refused.empty()) return fatal("the head refuses: " + welcome.refused);
    // Monitored only now that it has answered: a dead proxy out of CAF's cache never does.
    self_->monitor(scheduler);
    rendezvous_ = welcome.rendezvous;
    const ChildStart& start = setup_.start;
    const RankAdapters::Setup adapters{start.rank, start.epoch, start.options.max_loras};
    RankThread::Callbacks callbacks;
    // The head believes an envelope of a rank only from the worker that has said hello as this rank.
    const auto worker = caf::actor_cast<WorkerActor>(self_);
    callbacks.to_scheduler = [worker, scheduler](Envelope envelope) {
      caf::send_as(worker, scheduler, std::move(envelope));
    };
    callbacks.loading = setup_.loading;
    callbacks.fatal = [fatal = setup_.fatal](const std::string& why) { fatal(why); };
    callbacks.formed = [adapters, backend = setup_.backend, cache = welcome.cache, worker,
                        fatal = setup_.fatal](std::shared_ptr<model::RankModel> model) {
      RankAdapters::Callbacks to_others;
      to_others.to_cache = [worker, cache](Envelope envelope) { caf::send_as(worker, cache, std::move(envelope)); };
      to_others.fatal = fatal;
      caf::anon_send(worker, RankFormed{std::make_shared<RankAdapters>(adapters, backend->shard_plan(),
                                                                       std::move(model), std::move(to_others))});
    };
    thread_ =
        std::make_unique<RankThread>(RankThread::Setup{start.rank, start.epoch, start.options.block_size,
                                                       start.options.max_loras, setup_.grammars, setup_.vocab_size},
                                     setup_.backend, std::move(callbacks));
    watch();
  }

  Result<void> perform(const std::vector<uint8_t>& encoded) {
    const auto order = comm::decode<GroupOrder>(encoded);
    if (!order) return tl::unexpected(order.error());
    if (const auto* form = std::get_if<FormGroup>(&*order)) {
      return thread_->form(form->num_blocks, make_actor_rendezvous(self_->system(), rendezvous_));
    }
    thread_->abort();
    return {};
  }

  void head_lost(const caf::down_msg& down) {
    if (thread_) thread_->abort();
    fatal("the head is lost: " + self_->system().render(down.reason));
  }

  // ---- fatal

  void fatal(const std::string& why) { setup_.fatal(why); }

  WorkerActor::pointer self_;
  WorkerSetup setup_;
  RendezvousActor rendezvous_;
  EnvelopeAssembler assembler_;
  std::unique_ptr<RankThread> thread_;
  std::shared_ptr<RankAdapters> adapters_;
};

}  // namespace

WorkerActor::behavior_type worker(WorkerActor::pointer self, WorkerSetup setup) {
  auto state = std::make_shared<Worker>(self, std::move(setup));
  return {[state](Envelope& envelope) { state->take(envelope); },
          [state](RankFormed& formed) { state->formed(formed); }, [state](Tick) { state->watch(); }};
}

}  // namespace lorikeet::actors
