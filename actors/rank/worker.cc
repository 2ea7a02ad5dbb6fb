#include "actors/rank/worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "actors/rank/actor_rendezvous.h"
#include "actors/rank/rank_adapters.h"
#include "actors/rank/rank_grammars.h"
#include "actors/rank/rank_thread.h"
#include "actors/wire/caf_connection.h"
#include "actors/wire/host_name.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kConnectTimeout{10'000};
constexpr milliseconds kHelloTimeout{10'000};
constexpr milliseconds kHelloPause{5};  // before the head is asked again

class Worker {
 public:
  Worker(WorkerActor::pointer self, WorkerSetup setup) : self_(self), setup_(std::move(setup)) {
    self_->set_down_handler([this](const caf::down_msg& down) { head_lost(down); });
    if (setup_.scheduler) {
      scheduler_ = setup_.scheduler;
      say_hello();
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

  void formed(RankFormed& formed) {
    if (formed.epoch == setup_.start.epoch) adapters_ = std::move(formed.adapters);
  }

  // The group is lost, and this rank is not: it goes on in the next one.
  void leave(const LeaveGroup& order) {
    if (order.epoch <= setup_.start.epoch) return;
    setup_.start.epoch = order.epoch;
    assembler_ = EnvelopeAssembler();
    if (!thread_) {  // it will say hello in the new epoch, once its last hello is answered
      setup_.left(order.epoch);
      if (scheduler_ && !hello_in_flight_) say_hello();
      return;
    }
    grammars_->forget_all();
    thread_->leave(order.epoch, std::exchange(adapters_, nullptr));
  }

  void left(const GroupLeft& left) {
    if (left.epoch == setup_.start.epoch) say_hello();
  }

  // The watchdog: a handler that hangs cannot be ended from outside, the process can.
  void watch() {
    if (thread_ && thread_->step_is_overdue()) {
      return setup_.hung(
          fmt::format("step {} has not ended in {} ms", thread_->steps_finished() + 1, thread_->step_limit().count()));
    }
    self_->delayed_send(caf::actor_cast<WorkerActor>(self_), step_allowance(setup_.start.options) / 4, Tick{});
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
              scheduler_ = caf::actor_cast<SchedulerForRanks>(head);
              say_hello();
            },
            [this](caf::error& error) { fatal("the head cannot be reached: " + self_->system().render(error)); });
  }

  void say_hello() {
    hello_in_flight_ = true;
    const ChildStart& start = setup_.start;
    Hello hello{start.rank, getpid(), start.epoch, host_name(), start.options.device};
    self_->request(scheduler_, kHelloTimeout, std::move(hello), WorkerForHead(caf::actor_cast<WorkerForHead>(self_)))
        .then([this, epoch = start.epoch](Welcome& welcome) { welcomed(epoch, welcome); },
              [this](caf::error& error) { fatal("the head does not answer: " + self_->system().render(error)); });
  }

  // As a rank of `epoch`. Where another one is present by now, its hello is said when the thread has left the old one.
  void welcomed(uint64_t epoch, Welcome& welcome) {
    hello_in_flight_ = false;
    if (epoch != setup_.start.epoch) {
      if (!thread_) say_hello();
    } else if (welcome.refused.empty()) {
      refused_since_.reset();
      serve(welcome);
    } else {
      const auto now = self_->clock().now();
      if (!refused_since_) refused_since_ = now;
      if (!welcome.later || now - *refused_since_ > kHelloTimeout) return fatal("the head refuses: " + welcome.refused);
      self_->delayed_send(caf::actor_cast<WorkerActor>(self_), kHelloPause, GroupLeft{epoch});
    }
  }

  // ---- serving

  void serve(Welcome& welcome) {
    rendezvous_ = welcome.rendezvous;
    if (thread_) return thread_->announce();
    const SchedulerForRanks scheduler = scheduler_;
    // Monitored only now that it has answered: a dead proxy out of CAF's cache never does.
    self_->monitor(scheduler);
    const ChildStart& start = setup_.start;
    // The backend's model is the same in all epochs, and so is what its slots hold; at first what a predecessor has left.
    const RankAdapters::Setup adapters{start.rank, start.epoch, start.options.max_loras, setup_.descriptors,
                                       std::make_shared<SlotDigests>()};
    RankThread::Callbacks callbacks;
    // The head believes an envelope of a rank only from the worker that has said hello as this rank.
    const auto worker = caf::actor_cast<WorkerActor>(self_);
    callbacks.to_scheduler = [worker, scheduler](Envelope envelope) {
      caf::send_as(worker, scheduler, std::move(envelope));
    };
    callbacks.loading = setup_.loading;
    callbacks.fatal = [fatal = setup_.fatal](const std::string& why) { fatal(why); };
    callbacks.left = [worker, left = setup_.left](uint64_t epoch) {
      left(epoch);
      caf::anon_send(worker, GroupLeft{epoch});
    };
    callbacks.formed = [adapters, backend = setup_.backend, cache = welcome.cache, worker, fatal = setup_.fatal,
                        is_first = true](std::shared_ptr<model::RankModel> model, uint64_t epoch) mutable {
      RankAdapters::Setup of_epoch = adapters;
      if (std::exchange(is_first, false)) *adapters.held = backend->adapters_left();
      of_epoch.epoch = epoch;
      // Closes descriptors that the last epoch has not taken; the head sends none yet, and no transfer has the number 0.
      if (of_epoch.descriptors) (void)of_epoch.descriptors->receive(0);
      RankAdapters::Callbacks to_others;
      to_others.to_cache = [worker, cache](Envelope envelope) { caf::send_as(worker, cache, std::move(envelope)); };
      to_others.fatal = fatal;
      caf::anon_send(worker, RankFormed{epoch, std::make_shared<RankAdapters>(of_epoch, backend->shard_plan(),
                                                                              std::move(model), std::move(to_others))});
    };
    grammars_ = std::make_shared<RankGrammars>(setup_.grammars, [send = callbacks.to_scheduler, rank = start.rank](
                                                                    const GrammarCompiled& done, uint64_t epoch) {
      send({EnvelopeStream::group, rank, epoch, 0, true, comm::encode(GroupReport(done))});
    });
    const FindGrammar find = [grammars = grammars_](const std::string& digest) { return grammars->find(digest); };
    thread_ =
        std::make_unique<RankThread>(RankThread::Setup{start.rank, start.epoch, start.options.block_size,
                                                       start.options.max_loras, find, setup_.vocab_size, start.options},
                                     setup_.backend, std::move(callbacks));
    watch();
  }

  Result<void> perform(const std::vector<uint8_t>& encoded) {
    auto order = comm::decode<GroupOrder>(encoded);
    if (!order) return tl::unexpected(order.error());
    if (auto* grammar = std::get_if<GrammarText>(&*order)) {
      return grammars_->add(std::move(*grammar), setup_.start.epoch);
    }
    if (const auto* over = std::get_if<GrammarDrop>(&*order)) {
      grammars_->drop(over->digest);
      return {};
    }
    if (const auto* form = std::get_if<FormGroup>(&*order)) {
      return thread_->form(form->num_blocks, make_actor_rendezvous(self_->system(), rendezvous_));
    }
    thread_->fence();
    return {};
  }

  void head_lost(const caf::down_msg& down) {
    if (thread_) thread_->fence();
    fatal("the head is lost: " + self_->system().render(down.reason));
  }

  // ---- fatal

  void fatal(const std::string& why) { setup_.fatal(why); }

  WorkerActor::pointer self_;
  WorkerSetup setup_;
  SchedulerForRanks scheduler_;
  bool hello_in_flight_ = false;
  std::optional<caf::actor_clock::time_point> refused_since_;
  RendezvousActor rendezvous_;
  EnvelopeAssembler assembler_;
  std::shared_ptr<RankGrammars> grammars_;  // as long as the thread
  std::unique_ptr<RankThread> thread_;
  std::shared_ptr<RankAdapters> adapters_;
};

}  // namespace

WorkerActor::behavior_type worker(WorkerActor::pointer self, WorkerSetup setup) {
  auto state = std::make_shared<Worker>(self, std::move(setup));
  return {[state](Envelope& envelope) { state->take(envelope); },
          [state](RankFormed& formed) { state->formed(formed); },
          [state](const LeaveGroup& order) { state->leave(order); },
          [state](const GroupLeft& left) { state->left(left); }, [state](Tick) { state->watch(); }};
}

}  // namespace lorikeet::actors
