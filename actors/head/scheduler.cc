#include "actors/head/scheduler.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <unordered_set>
#include <utility>
#include <variant>

#include "actors/head/held_requests.h"
#include "actors/head/in_flight_plans.h"
#include "actors/head/rank_group.h"
#include "actors/head/rendezvous_store.h"
#include "actors/wire/step_totals.h"
#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::milliseconds kTick{500};
// The ranks watch their steps themselves; the scheduler is the second to give up.
constexpr std::chrono::milliseconds kRankGrace{2000};

class Scheduler {
 public:
  Scheduler(SchedulerActor::pointer self, SchedulerSetup setup)
      : self_(self),
        setup_(std::move(setup)),
        group_(setup_.options.tensor_parallel_size, setup_.first_epoch, setup_.secret),
        workers_(static_cast<size_t>(group_.size())),
        assemblers_(static_cast<size_t>(group_.size())),
        in_flight_(group_.size()) {
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
    const size_t waiting = held_.size() + (engine_ ? static_cast<size_t>(engine_->stats().waiting) : 0);
    const auto limit = static_cast<size_t>(std::max(1, setup_.options.max_num_queued_reqs));
    if (waiting >= limit) {
      fail_request(submit.request->id, engine::ErrorCode::queue_full,
                   fmt::format("{} requests are waiting, as many as --max-num-queued-reqs allows", waiting));
    } else if (submit.request->adapter.empty()) {
      start(std::move(submit.request));
    } else {
      resolve(std::move(submit.request));
    }
    pump();
  }

  void finish(const Finish& finish) {
    if (held_.erase(finish.id)) {
      finish_unstarted(finish.id, finish.reason);
    } else if (engine_) {
      engine_->finish(finish.id, finish.reason);
    }
    pump();
  }

  // ---- starting, forming

  Welcome hello(Hello& hello, WorkerForHead& worker) {
    Welcome welcome;
    auto ok =
        group_.admit(hello.rank, hello.pid, hello.epoch, hello.secret, std::move(hello.host), std::move(hello.device));
    if (!ok) {
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
    if (envelope.epoch != group_.epoch() || group_.lost()) return;
    const int32_t rank = envelope.rank;
    if (rank < 0 || rank >= group_.size()) return;
    const EnvelopeStream stream = envelope.stream;
    auto bytes = assemblers_[static_cast<size_t>(rank)].add(std::move(envelope));
    if (!bytes) return lose_group(fmt::format("rank {}: {}", rank, bytes.error().message));
    if (!*bytes) return;
    Result<void> ok;
    switch (stream) {
      case EnvelopeStream::group:
        ok = report(rank, **bytes);
        break;
      case EnvelopeStream::steps:
        ok = result(rank, **bytes);
        break;
      case EnvelopeStream::adapters:
        return;  // the adapter cache hears them
    }
    if (!ok) return lose_group(ok.error().message);
    pump();
  }

  // ---- lost

  void new_epoch(const control::NewEpoch& order) {
    if (order.epoch <= group_.epoch()) return;
    if (!group_.lost()) lose_group(order.why);
    caf::anon_send_exit(rendezvous_, caf::exit_reason::user_shutdown);
    rendezvous_ = self_->spawn(rendezvous_store);
    group_.start_epoch(order.epoch);
    std::fill(assemblers_.begin(), assemblers_.end(), EnvelopeAssembler());
  }

  // ---- any state

  void tick() {
    const std::chrono::milliseconds limit(setup_.options.rank_timeout_ms);
    if (const auto began = in_flight_.oldest_began(); began && now() - *began > limit + kRankGrace) {
      lose_group(fmt::format("ranks {} have not answered in {} ms", fmt::join(in_flight_.unanswered(), ", "),
                             (limit + kRankGrace).count()));
    }
    self_->delayed_send(caf::actor_cast<SchedulerActor>(self_), kTick, Tick{});
  }

  ServingStatus status() const {
    ServingStatus status;
    status.zmq = address_;
    status.serving = group_.serving();
    status.kv_cache_tokens = int64_t{num_blocks_} * setup_.options.block_size;
    status.epoch = group_.epoch();
    status.head.pid = getpid();
    status.queues = {held_.size(), held_.unresolved()};
    if (engine_) status.engine.stats = engine_->stats();
    status.engine.plans_sent_ahead = sent_ahead_;
    status.steps = step_totals_;
    for (int32_t rank = 0; rank < group_.size(); ++rank) {
      const RankGroup::Member& member = group_.members()[static_cast<size_t>(rank)];
      status.ranks.push_back({rank, name_of(member.state), member.pid, group_.epoch(), member.host, member.device,
                              member.loaded.weight_bytes, member.loaded.block_bytes, member.loaded.num_blocks});
    }
    return status;
  }

 private:
  InFlightPlans::TimePoint now() const { return self_->clock().now(); }

  // ---- requests

  // Its content is claimed as it arrives: the adapter is read while the request waits for its turn.
  void resolve(std::shared_ptr<engine::Request> request) {
    const engine::SequenceId id = request->id;
    const std::string name = request->adapter;
    held_.add_unresolved(std::move(request));
    claimed_.insert(id);
    self_->request(setup_.cache, caf::infinite, ResolveAdapter{id, name})
        .then([this, id](AdapterResolved& answer) { resolved(id, answer.digest, answer.error); },
              [this, id](caf::error& error) { resolved(id, "", "adapter cache: " + self_->system().render(error)); });
  }

  void resolved(engine::SequenceId id, const std::string& digest, const std::string& error) {
    auto request = held_.resolved(id, digest);
    if (!request) return;  // cancelled meanwhile
    if (error.empty()) {
      start(std::move(request));
    } else {
      fail_request(id, engine::ErrorCode::adapter_failed, error);
    }
    pump();
  }

  void start(std::shared_ptr<engine::Request> request) {
    if (!group_.serving()) return held_.add_waiting(std::move(request));
    const engine::SequenceId id = request->id;
    if (auto ok = engine_->add(std::move(*request)); !ok) fail_request(id, ok.error().code, ok.error().message);
  }

  void fail_request(engine::SequenceId id, engine::ErrorCode code, std::string message) {
    events_.emplace_back(engine::FailEvent{id, {code, std::move(message)}});
  }

  void finish_unstarted(engine::SequenceId id, engine::FinishReason reason) {
    engine::FinishEvent event;
    event.id = id;
    event.reason = reason;
    events_.emplace_back(event);
  }

  // Sends everything that can be sent now: plans to the ranks, wishes to the cache, events to the gateway.
  void pump() {
    while (engine_ && group_.serving()) {
      auto plan = engine_->plan();
      if (!plan) break;
      send_plan(*plan);
    }
    if (engine_) {
      for (engine::AdapterCall& call : engine_->take_adapter_calls()) {
        std::visit([this](auto& adapter_call) { ask_cache(adapter_call); }, call);
      }
      for (engine::Event& event : engine_->take_events()) events_.push_back(std::move(event));
    }
    if (events_.empty()) return;
    for (const engine::Event& event : events_) {
      if (const auto end = ended(event); end && claimed_.erase(end->id) > 0) self_->send(setup_.cache, *end);
    }
    self_->send(gateway_, EngineEvents{std::make_shared<std::vector<engine::Event>>(std::exchange(events_, {}))});
  }

  static std::optional<UnclaimAdapter> ended(const engine::Event& event) {
    if (const auto* finish = std::get_if<engine::FinishEvent>(&event)) {
      const bool cancelled = finish->reason == engine::FinishReason::abort;
      return UnclaimAdapter{finish->id, cancelled ? AdapterOutcome::none : AdapterOutcome::success};
    }
    if (const auto* failure = std::get_if<engine::FailEvent>(&event)) return UnclaimAdapter{failure->id};
    return std::nullopt;
  }

  void ask_cache(const engine::AcquireAdapter& call) {
    self_->request(setup_.cache, caf::infinite, AcquireSlot{call.id, call.digest})
        .then(
            [this, call](SlotAcquired& answer) {
              if (!acquired(call.id, answer.slot, std::move(answer.error))) {
                self_->send(setup_.cache, ReleaseSlot{call.id, call.digest});
              }
            },
            [this, call](caf::error& error) {
              acquired(call.id, engine::kBaseSlot, "adapter cache: " + self_->system().render(error));
            });
  }

  void ask_cache(const engine::ReleaseAdapter& call) { self_->send(setup_.cache, ReleaseSlot{call.id, call.digest}); }

  // False: a slot was leased to a request of an engine that has been replaced, and nobody will give it back.
  bool acquired(engine::SequenceId id, engine::SlotId slot, std::string error) {
    bool wanted = true;
    if (error.empty()) {
      wanted = engine_->adapter_ready(id, slot);
    } else {
      engine_->adapter_failed(id, std::move(error));
    }
    pump();
    return wanted;
  }

  // ---- ranks

  Result<void> report(int32_t rank, const std::vector<uint8_t>& bytes) {
    const auto report = comm::decode<GroupReport>(bytes);
    if (!report) return fail("rank {}: {}", rank, report.error().message);
    if (const auto* loaded = std::get_if<RankLoaded>(&*report)) return this->loaded(rank, *loaded);
    return ready(rank);
  }

  Result<void> loaded(int32_t rank, const RankLoaded& loaded) {
    if (auto ok = group_.loaded(rank, loaded); !ok) return ok;
    if (!group_.all_loaded()) return {};
    make_engine(group_.num_blocks());
    setup_.to_supervisor(control::Progress{kv_cache_sentence()});
    send_to_ranks(FormGroup{num_blocks_});
    return {};
  }

  std::string kv_cache_sentence() const {
    const int64_t tokens = int64_t{num_blocks_} * setup_.options.block_size;
    return fmt::format("KV cache holds {} tokens ({} blocks of {})", tokens, num_blocks_, setup_.options.block_size);
  }

  // The engine outlives the epochs, unless the new ranks hold fewer blocks than it counts on.
  void make_engine(int32_t num_blocks) {
    if (engine_ && num_blocks_ <= num_blocks) return;
    const ServerOptions& options = setup_.options;
    engine::EngineConfig config;
    config.max_model_len = setup_.max_model_len;
    config.max_num_seqs = options.max_num_seqs;
    config.max_num_batched_tokens = options.max_num_batched_tokens;
    config.max_num_queued_requests = options.max_num_queued_reqs;
    config.block_size = options.block_size;
    config.num_blocks = num_blocks_ = num_blocks;
    config.enable_prefix_caching = options.enable_prefix_caching;
    engine_.emplace(config);
  }

  Result<void> ready(int32_t rank) {
    if (auto ok = group_.ready(rank); !ok) return ok;
    if (!group_.serving()) return {};
    engine_->start_epoch(engine::Epoch(group_.epoch()));
    self_->send(setup_.cache, GroupFormed{group_.epoch(), workers_});
    tell_ready();
    for (auto& request : held_.take_waiting()) start(std::move(request));
    return {};
  }

  void tell_ready() {
    if (group_.serving() && !address_.empty()) {
      setup_.to_supervisor(control::Ready{group_.epoch(), address_});
    }
  }

  Result<void> result(int32_t rank, const std::vector<uint8_t>& bytes) {
    auto result = comm::decode<engine::StepResult>(bytes);
    if (!result) return fail("rank {}: {}", rank, result.error().message);
    result->rank = rank;
    if (auto ok = in_flight_.add(*std::move(result)); !ok) return ok;
    while (const auto agreed = in_flight_.take_agreed(now())) {
      step_totals_.add(agreed->times);
      engine_->absorb(*agreed);
    }
    return {};
  }

  void send_plan(const engine::StepPlan& plan) {
    if (in_flight_.size() > 0) ++sent_ahead_;
    in_flight_.sent(plan.step, plan.rows.size(), now());
    send_to_ranks(EnvelopeStream::steps, plan.step.value(), comm::encode(plan));
  }

  void send_to_ranks(const GroupOrder& order) { send_to_ranks(EnvelopeStream::group, 0, comm::encode(order)); }

  void send_to_ranks(EnvelopeStream stream, uint64_t step, std::vector<uint8_t> bytes) {
    const std::vector<Envelope> parts = split({stream, 0, group_.epoch(), step, true, {}}, std::move(bytes));
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
      const bool link = down.reason == caf::exit_reason::remote_link_unreachable;
      return lose_group(
          fmt::format("rank {} (process {}) is gone: {}", rank, group_.members()[rank].pid,
                      link ? "its process has ended or does not answer" : self_->system().render(down.reason)));
    }
  }

  // Fences the epoch: what its ranks still say is not heard, and nobody waits for them.
  void lose_group(const std::string& why) {
    if (group_.lost()) return;
    const uint64_t epoch = group_.epoch();
    send_to_ranks(Fence{});
    for (WorkerForHead& worker : workers_) {
      if (worker) self_->demonitor(worker.address());
      worker = WorkerForHead();
    }
    group_.lose();
    in_flight_.clear();
    self_->send(setup_.cache, GroupLost{epoch});
    if (engine_) engine_->ranks_lost(why);
    setup_.to_supervisor(control::GroupLost{epoch, why});
    pump();
  }

  SchedulerActor::pointer self_;
  SchedulerSetup setup_;
  GatewayActor gateway_;
  std::string address_;
  RankGroup group_;
  std::vector<WorkerForHead> workers_;         // [ranks]; void: not here
  std::vector<EnvelopeAssembler> assemblers_;  // [ranks]
  RendezvousActor rendezvous_;
  std::optional<engine::Engine> engine_;
  int32_t num_blocks_ = 0;
  InFlightPlans in_flight_;
  uint64_t sent_ahead_ = 0;  // plans that were sent while an earlier one had no result
  StepTotals step_totals_;
  HeldRequests held_;
  std::unordered_set<engine::SequenceId> claimed_;  // requests that may hold a claim in the adapter cache
  std::vector<engine::Event> events_;
};

}  // namespace

SchedulerActor::behavior_type scheduler(SchedulerActor::pointer self, SchedulerSetup setup) {
  auto state = std::make_shared<Scheduler>(self, std::move(setup));
  return {[state](Hello& hello, WorkerForHead& worker) { return state->hello(hello, worker); },
          [state](Envelope& envelope) { state->take(envelope); },
          [state](Serve& serve) { state->serve(serve); },
          [state](Submit& submit) { state->submit(submit); },
          [state](const Finish& finish) { state->finish(finish); },
          [state](const SupervisorSaid& said) { state->new_epoch(said.order); },
          [state](Tick) { state->tick(); },
          [state](const StatusQuery&) { return state->status(); }};
}

}  // namespace lorikeet::actors
