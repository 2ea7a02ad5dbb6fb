#include "actors/head/scheduler.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>

#include "actors/head/rendezvous_store.h"
#include "actors/head/serving_core.h"
#include "actors/wire/step_codec.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::milliseconds kTick{500};

ServingCore::Config core_config(const SchedulerSetup& setup) {
  const ServerOptions& options = setup.options;
  ServingCore::Config config;
  config.engine.max_model_len = setup.max_model_len;
  config.engine.max_num_seqs = options.max_num_seqs;
  config.engine.max_num_batched_tokens = options.max_num_batched_tokens;
  config.engine.max_num_queued_requests = options.max_num_queued_reqs;
  config.engine.block_size = options.block_size;
  config.engine.enable_prefix_caching = options.enable_prefix_caching;
  config.ranks = options.tensor_parallel_size;
  config.vocab_size = setup.vocab_size;
  config.first_epoch = setup.first_epoch;
  config.step_allowance = step_allowance(options);
  config.step_cost = setup.step_cost;
  config.on_gpu = options.device == "cuda";
  config.rank_timeout = std::chrono::milliseconds(options.rank_timeout_ms);
  return config;
}

class Scheduler {
 public:
  Scheduler(SchedulerActor::pointer self, SchedulerSetup setup)
      : self_(self),
        setup_(std::move(setup)),
        core_(core_config(setup_)),
        workers_(static_cast<size_t>(core_.group().size())),
        assemblers_(workers_.size(), EnvelopeAssembler(kMaxRankMessageBytes)) {
    self_->set_down_handler([this](const caf::down_msg& down) { worker_down(down); });
    rendezvous_ = self_->spawn(rendezvous_store);
    tick();
  }

  // ---- clients

  void serve(Serve& serve) {
    gateway_ = serve.gateway;
    address_ = serve.address;
    tell_ready();
  }

  void submit(Submit& submit) {
    core_.submit(std::move(submit.request), now());
    act();
  }

  void finish(const Finish& finish) {
    core_.finish(finish.id, finish.reason, now());
    act();
  }

  void give_way(const GiveWay& say) {
    core_.give_way(say.epoch, say.digest, say.wanted, now());
    act();
  }

  bool reset_prefix_cache() {
    core_.reset_prefix_cache();
    return true;
  }

  // ---- ranks

  Welcome hello(Hello& hello, WorkerForHead& worker) {
    Welcome welcome;
    if (!is_connected_as(hello.rank, worker)) {
      welcome.refused = fmt::format("a process that is not rank {} says hello as if it were", hello.rank);
      return welcome;
    }
    auto ok = core_.admit(hello.rank, hello.pid, hello.epoch, std::move(hello.host), std::move(hello.device));
    if (!ok) {
      const RankGroup& group = core_.group();
      welcome.later = hello.epoch > group.epoch() || (hello.epoch == group.epoch() && group.lost());
      welcome.refused = ok.error().message;
      return welcome;
    }
    WorkerForHead& known = workers_[static_cast<size_t>(hello.rank)];
    if (!known) {
      known = worker;
      self_->monitor(worker);
    }
    welcome.cache = setup_.cache;
    welcome.rendezvous = rendezvous_;
    return welcome;
  }

  void take(Envelope& envelope) {
    const RankGroup& group = core_.group();
    if (envelope.epoch != group.epoch() || group.lost()) return;
    const int32_t rank = envelope.rank;
    if (rank < 0 || rank >= group.size() || !comes_from(workers_[static_cast<size_t>(rank)])) return;
    const EnvelopeStream stream = envelope.stream;
    auto bytes = assemblers_[static_cast<size_t>(rank)].add(std::move(envelope));
    if (!bytes) {
      core_.lose_group({fmt::format("rank {}: {}", rank, bytes.error().message), true, {rank}}, now());
    } else if (*bytes) {
      hear(rank, stream, **bytes);
    }
    act();
  }

  // ---- any state

  void new_epoch(const control::NewEpoch& order) {
    if (order.epoch <= core_.group().epoch()) return;
    core_.start_epoch(order.epoch, order.why, order.by_rank, order.doubts_kv, now());
    act();
    caf::anon_send_exit(rendezvous_, caf::exit_reason::user_shutdown);
    rendezvous_ = self_->spawn(rendezvous_store);
  }

  void tick() {
    core_.tick(now());
    act();
    self_->delayed_send(caf::actor_cast<SchedulerActor>(self_), kTick, Tick{});
  }

  ServingStatus status() const {
    const RankGroup& group = core_.group();
    ServingStatus status;
    status.zmq = address_;
    status.serving = group.serving();
    status.kv_cache_tokens = core_.kv_cache_tokens();
    status.epoch = group.epoch();
    status.head.pid = getpid();
    status.queues = {core_.held().size(), core_.held().unresolved()};
    if (const auto stats = core_.engine_stats()) status.engine.stats = *stats;
    status.engine.plans_sent_ahead = core_.plans_sent_ahead();
    status.steps = core_.step_totals();
    status.pauses = core_.pauses().totals();
    status.last_pauses = core_.pauses().latest();
    for (int32_t rank = 0; rank < group.size(); ++rank) {
      const RankGroup::Member& member = group.members()[static_cast<size_t>(rank)];
      status.ranks.push_back({rank, name_of(member.state), member.pid, group.epoch(), member.host, member.device,
                              member.loaded.weight_bytes, member.loaded.block_bytes, member.loaded.num_blocks,
                              member.loaded.weight_bytes_read});
    }
    return status;
  }

 private:
  ServingCore::TimePoint now() const { return self_->clock().now(); }

  // Whether the present message is the worker's own. CAF takes the sender's process from the connection.
  bool comes_from(const WorkerForHead& worker) const {
    return worker && caf::actor_cast<caf::strong_actor_ptr>(worker) == self_->current_sender();
  }

  // Whether the present message came over the rank's connection, and the worker is at its other end.
  bool is_connected_as(int32_t rank, const WorkerForHead& worker) const {
    const auto& sender = self_->current_sender();
    if (!sender || !worker || sender->node() != worker.node()) return false;
    return !setup_.rank_of || setup_.rank_of(sender->node()) == rank;
  }

  // Assembles a rank's message from its parts. One that cannot be read loses the group.
  void hear(int32_t rank, EnvelopeStream stream, const std::vector<uint8_t>& bytes) {
    const auto decoded = [&](auto message) {
      if (!message) core_.lose_group({fmt::format("rank {}: {}", rank, message.error().message), true, {rank}}, now());
      return message;
    };
    switch (stream) {
      case EnvelopeStream::group:
        if (const auto report = decoded(comm::decode<GroupReport>(bytes))) {
          if (const auto* loaded = std::get_if<RankLoaded>(&*report)) return core_.loaded(rank, *loaded, now());
          if (const auto* grammar = std::get_if<GrammarCompiled>(&*report)) {
            return core_.grammar_compiled(rank, *grammar, now());
          }
          core_.ready(rank, now());
        }
        break;
      case EnvelopeStream::steps:
        if (auto result = decoded(decode_result(bytes))) core_.result(rank, *std::move(result), now());
        break;
      case EnvelopeStream::adapters:
        break;  // the adapter cache hears them
    }
  }

  // ---- effects

  void act() {
    for (auto& effect : core_.take_effects()) std::visit([this](auto& wanted) { perform(wanted); }, effect);
  }

  void perform(ServingCore::FormGroup& form) {
    setup_.to_supervisor(
        control::Progress{fmt::format("KV cache holds {} tokens ({} blocks of {})", core_.kv_cache_tokens(),
                                      form.num_blocks, setup_.options.block_size)});
    send_to_ranks(core_.group().epoch(), FormGroup{form.num_blocks});
  }

  void perform(ServingCore::GroupServes& serves) {
    self_->send(setup_.cache, GroupFormed{serves.epoch, workers_});
    tell_ready();
  }

  // Further messages of the epoch's ranks are ignored, and nothing waits for them.
  void perform(ServingCore::GroupLost& lost) {
    send_to_ranks(lost.epoch, Fence{});
    for (WorkerForHead& worker : workers_) {
      if (worker) self_->demonitor(worker.address());
      worker = WorkerForHead();
    }
    std::fill(assemblers_.begin(), assemblers_.end(), EnvelopeAssembler(kMaxRankMessageBytes));
    self_->send(setup_.cache, GroupLost{lost.epoch});
    setup_.to_supervisor(control::GroupLost{lost.epoch, lost.loss.why, lost.loss.by_rank, lost.loss.ranks});
  }

  void perform(ServingCore::SendToRanks& send) { send_to_ranks(core_.group().epoch(), send.order); }

  void perform(ServingCore::SendPlan& send) {
    const engine::StepPlan& plan = send.plan;
    send_to_ranks(EnvelopeStream::steps, plan.epoch.value(), plan.step.value(), encode_plan(plan));
  }

  void perform(ServingCore::Resolve& resolve) {
    self_->request(setup_.cache, caf::infinite, ResolveAdapter{resolve.id, resolve.name})
        .then(
            [this, id = resolve.id](AdapterResolved& answer) {
              const auto code = answer.unknown ? engine::ErrorCode::unknown_adapter : engine::ErrorCode::adapter_failed;
              resolved(id, answer.digest, answer.error, code);
            },
            [this, id = resolve.id](caf::error& error) {
              resolved(id, "", cache_failed(error), engine::ErrorCode::adapter_failed);
            });
  }

  void resolved(engine::SequenceId id, const std::string& digest, const std::string& error, engine::ErrorCode code) {
    core_.resolved(id, digest, error, now(), code);
    act();
  }

  void perform(ServingCore::Acquire& acquire) {
    self_->request(setup_.cache, caf::infinite, AcquireSlot{acquire.id, acquire.digest})
        .then([this, acquire](SlotAcquired& answer) { acquired(acquire, answer); },
              [this, acquire, epoch = core_.group().epoch()](caf::error& error) {
                acquired(acquire, {engine::kBaseSlot, cache_failed(error), epoch, false});
              });
  }

  void acquired(const ServingCore::Acquire& asked, const SlotAcquired& answer) {
    core_.acquired(asked, answer.epoch, answer.slot, answer.error, answer.ranks_failed, now());
    act();
  }

  std::string cache_failed(const caf::error& error) const { return "adapter cache: " + self_->system().render(error); }

  void perform(ServingCore::Release& release) { self_->send(setup_.cache, ReleaseSlot{release.id, release.digest}); }
  void perform(ServingCore::Unclaim& over) { self_->send(setup_.cache, UnclaimAdapter{over.id, over.outcome}); }

  void perform(ServingCore::Events& events) {
    EngineEvents message{std::make_shared<std::vector<engine::Event>>(std::move(events.events))};
    if (!events.started.empty()) {
      message.started = std::make_shared<const std::vector<StartedRequest>>(std::move(events.started));
    }
    self_->send(gateway_, std::move(message));
  }

  void tell_ready() {
    const RankGroup& group = core_.group();
    if (group.serving() && !address_.empty())
      setup_.to_supervisor(control::Ready{group.epoch(), address_, 0, core_.kv_cache_tokens()});
  }

  void send_to_ranks(uint64_t epoch, const GroupOrder& order) {
    send_to_ranks(EnvelopeStream::group, epoch, 0, comm::encode(order));
  }

  void send_to_ranks(EnvelopeStream stream, uint64_t epoch, uint64_t step, std::vector<uint8_t> bytes) {
    const std::vector<Envelope> parts = split({stream, 0, epoch, step, true, {}}, std::move(bytes));
    for (size_t rank = 0; rank < workers_.size(); ++rank) {
      if (!workers_[rank]) continue;
      for (Envelope part : parts) {
        part.rank = static_cast<int32_t>(rank);
        self_->send(workers_[rank], std::move(part));
      }
    }
  }

  void worker_down(const caf::down_msg& down) {
    for (size_t rank = 0; rank < workers_.size(); ++rank) {
      if (!workers_[rank] || workers_[rank].address() != down.source) continue;
      // A broken link may be a killed process or one that has stopped.
      const bool link = down.reason == caf::exit_reason::remote_link_unreachable;
      core_.lose_group(
          {fmt::format("rank {} (process {}) is gone: {}", rank, core_.group().members()[rank].pid,
                       link ? "its process has ended or does not answer" : self_->system().render(down.reason)),
           !link,
           {static_cast<int32_t>(rank)}},
          now());
      return act();
    }
  }

  SchedulerActor::pointer self_;
  SchedulerSetup setup_;
  ServingCore core_;
  GatewayActor gateway_;
  std::string address_;
  std::vector<WorkerForHead> workers_;         // [ranks]; void: not here
  std::vector<EnvelopeAssembler> assemblers_;  // [ranks]
  RendezvousActor rendezvous_;
};

}  // namespace

SchedulerActor::behavior_type scheduler(SchedulerActor::pointer self, SchedulerSetup setup) {
  auto state = std::make_shared<Scheduler>(self, std::move(setup));
  return {[state](Hello& hello, WorkerForHead& worker) { return state->hello(hello, worker); },
          [state](Envelope& envelope) { state->take(envelope); },
          [state](Serve& serve) { state->serve(serve); },
          [state](Submit& submit) { state->submit(submit); },
          [state](const Finish& finish) { state->finish(finish); },
          [state](const GiveWay& say) { state->give_way(say); },
          [state](const ResetPrefixCache&) { return state->reset_prefix_cache(); },
          [state](const SupervisorSaid& said) { state->new_epoch(said.order); },
          [state](Tick) { state->tick(); },
          [state](const StatusQuery&) { return state->status(); },
          [](Pulse) { return true; }};
}

}  // namespace lorikeet::actors
