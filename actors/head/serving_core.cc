#include "actors/head/serving_core.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace lorikeet::actors {
namespace {

// Ranks watch their steps themselves; the core gives up a little later.
constexpr std::chrono::milliseconds kRankGrace{2000};

// How the request ended, if the event is its last.
struct End {
  engine::SequenceId id;
  AdapterOutcome outcome = AdapterOutcome::none;
};

std::optional<End> end_of(const engine::Event& event) {
  if (const auto* finish = std::get_if<engine::FinishEvent>(&event)) {
    const bool cancelled = finish->reason == engine::FinishReason::abort;
    return End{finish->id, cancelled ? AdapterOutcome::none : AdapterOutcome::success};
  }
  if (const auto* failed = std::get_if<engine::Boxed<engine::FailEvent>>(&event)) {
    const engine::FailEvent& failure = *failed;
    const bool no_token = failure.error.code == engine::ErrorCode::no_token && !failure.is_its_own;
    return End{failure.id, no_token ? AdapterOutcome::no_token : AdapterOutcome::none};
  }
  return std::nullopt;
}

}  // namespace

ServingCore::ServingCore(Config config)
    : config_(std::move(config)),
      group_(config_.ranks, config_.first_epoch),
      in_flight_(config_.ranks, config_.vocab_size),
      pace_(config_.step_cost, config_.on_gpu, config_.step_allowance),
      grammars_(config_.ranks) {}

// ---- requests

void ServingCore::submit(std::shared_ptr<engine::Request> request, TimePoint now) {
  const Id id = request->id;
  const size_t waiting = held_.size() + (engine_ ? static_cast<size_t>(engine_->num_waiting()) : 0);
  if (waiting >= static_cast<size_t>(std::max(1, config_.engine.max_num_queued_requests))) {
    fail_request(id, engine::ErrorCode::queue_full,
                 fmt::format("{} requests are waiting, as many as --max-num-queued-reqs allows", waiting));
    return pump(now);
  }
  if (request->sampling.answer.grammar_kind >= 0) grammars_.claim(id, request->sampling.answer);
  if (request->adapter.empty()) {
    start(std::move(request));
  } else {
    // Its content is claimed as it arrives: the adapter is read while the request waits for its turn.
    claims_[id] = request->adapter;
    effects_.push_back(Resolve{id, request->adapter});
    held_.add_unresolved(std::move(request));
  }
  pump(now);
}

void ServingCore::finish(Id id, engine::FinishReason reason, TimePoint now) {
  if (held_.erase(id)) {
    events_.emplace_back(engine::FinishEvent{id, reason, -1, 0});
  } else if (engine_) {
    engine_->finish(id, reason);
  }
  pump(now);
}

void ServingCore::reset_prefix_cache() {
  if (engine_) engine_->reset_prefix_cache();
}

void ServingCore::resolved(Id id, const std::string& digest, const std::string& error, TimePoint now,
                           engine::ErrorCode code) {
  auto request = held_.resolved(id, digest);
  if (!request) return;  // cancelled meanwhile
  if (error.empty()) {
    start(std::move(request));
  } else {
    fail_request(id, code, error);
  }
  pump(now);
}

void ServingCore::start(std::shared_ptr<engine::Request> request) {
  if (!group_.serving()) return held_.add_waiting(std::move(request));
  const Id id = request->id;
  if (const auto why = grammars_.why_given_up(id)) return fail_request(id, engine::ErrorCode::poison, *why);
  if (!grammars_.ready(id)) return held_.add_without_grammar(std::move(request));
  if (auto ok = engine_->add(std::move(*request)); !ok) fail_request(id, ok.error().code, ok.error().message);
}

void ServingCore::fail_request(Id id, engine::ErrorCode code, std::string message) {
  events_.emplace_back(engine::Boxed<engine::FailEvent>({id, {code, std::move(message)}}));
}

void ServingCore::acquired(const Acquire& asked, uint64_t epoch, engine::SlotId slot, const std::string& error,
                           bool ranks_failed, TimePoint now) {
  // The engine has taken back what it asked of ranks that are gone, and a lease on their slots is void.
  if (epoch != group_.epoch() || !group_.serving()) return;
  if (ranks_failed) return lose_group({error, true, {}}, now);
  if (!error.empty()) {
    engine_->adapter_failed(asked.id, error);
  } else if (!engine_->adapter_ready(asked.id, slot)) {
    effects_.push_back(Release{asked.id, asked.digest});
  }
  pump(now);
}

void ServingCore::give_way(uint64_t epoch, const std::string& digest, bool wanted, TimePoint now) {
  if (epoch != group_.epoch() || !group_.serving()) return;
  engine_->give_way(digest, wanted);
  pump(now);
}

// ---- ranks

Result<void> ServingCore::admit(int32_t rank, int32_t pid, uint64_t epoch, std::string host, std::string device) {
  return group_.admit(rank, pid, epoch, std::move(host), std::move(device));
}

void ServingCore::loaded(int32_t rank, const RankLoaded& loaded, TimePoint now) {
  if (auto ok = group_.loaded(rank, loaded); !ok) return lose_group({ok.error().message, true, {rank}}, now);
  if (!group_.all_loaded()) return;
  pauses_.all_loaded(now);
  if (!group_.keeps_kv() && engine_) engine_->forget_kv();
  fit_engine(group_.num_blocks());
  effects_.push_back(FormGroup{num_blocks_});
}

void ServingCore::fit_engine(int32_t num_blocks) {
  num_blocks_ = num_blocks;
  if (engine_) return engine_->resize(num_blocks);
  config_.engine.num_blocks = num_blocks;
  engine_.emplace(config_.engine);
}

void ServingCore::ready(int32_t rank, TimePoint now) {
  if (auto ok = group_.ready(rank); !ok) return lose_group({ok.error().message, true, {rank}}, now);
  if (!group_.serving()) return;
  pauses_.served(anybody_waits(), now);
  effects_.push_back(GroupServes{group_.epoch()});
  grammars_.group_serves();
  engine_->start_epoch(engine::Epoch(group_.epoch()));
  for (auto& request : held_.take_waiting()) start(std::move(request));
  pump(now);
}

void ServingCore::grammar_compiled(int32_t rank, const GrammarCompiled& answer, TimePoint now) {
  if (group_.lost()) return;
  if (auto ok = grammars_.answered(rank, answer, now); !ok) return lose_group({ok.error().message, true, {rank}}, now);
  for (const GrammarBook::Outcome& outcome : grammars_.take_outcomes()) {
    auto request = held_.take_without_grammar(outcome.id);
    if (!request) continue;  // cancelled meanwhile
    if (outcome.error.empty()) {
      start(std::move(request));
    } else {
      fail_request(outcome.id, engine::ErrorCode::internal, "the grammar cannot be compiled: " + outcome.error);
    }
  }
  pump(now);
}

void ServingCore::result(int32_t rank, engine::StepResult result, TimePoint now) {
  if (group_.lost()) return;
  result.rank = rank;
  // A rank whose peer has failed can go on itself. Where ranks disagree, nobody knows which one is wrong.
  const bool peer_failed = result.peer_failed, failed = !result.error.empty();
  if (auto ok = in_flight_.add(std::move(result)); !ok) {
    const bool is_this_one = failed && !peer_failed;
    return lose_group({ok.error().message, !peer_failed, is_this_one ? std::vector{rank} : std::vector<int32_t>()},
                      now);
  }
  for (;;) {
    const auto began = in_flight_.oldest_began();
    const StepPace::Floor floor = in_flight_.oldest_floor();
    auto agreed = in_flight_.take_agreed(now);
    if (!agreed) break;
    pace_.took(floor, now - *began);
    pauses_.token(now);
    step_totals_.add(agreed->times);
    engine_->absorb(*std::move(agreed));
  }
  pump(now);
}

void ServingCore::lose_group(const RankLoss& loss, TimePoint now) {
  if (group_.lost()) return;
  effects_.push_back(GroupLost{group_.epoch(), loss});
  pauses_.lost(group_.epoch(), loss.why, in_flight_.oldest_began(), now);
  const bool served = group_.serving();
  group_.lose();
  in_flight_.clear();
  grammars_.group_lost();
  held_.group_lost();
  if (engine_ && served) engine_->ranks_lost();
  take_what_the_engine_wants();
  give_events();
}

void ServingCore::start_epoch(uint64_t epoch, const std::string& why, bool by_rank, bool doubts_kv, TimePoint now) {
  if (epoch <= group_.epoch()) return;
  lose_group({why, by_rank, {}}, now);
  if (engine_ && by_rank) engine_->blame_requests(why);
  if (engine_ && doubts_kv) engine_->forget_kv();  // what a faulty rank wrote is not trusted
  pauses_.epoch_began(why, by_rank, now);
  group_.start_epoch(epoch);
  take_what_the_engine_wants();
  give_events();
}

bool ServingCore::anybody_waits() const {
  const engine::EngineStats stats = engine_->stats();
  return held_.size() > 0 || stats.waiting + stats.preempted + stats.running > 0;
}

void ServingCore::tick(TimePoint now) {
  const auto patience = config_.rank_timeout + kRankGrace;
  const auto unheard = grammars_.waits_since();
  if (unheard && now - *unheard > patience) {
    return lose_group({fmt::format("a rank has not compiled a grammar in {} ms", patience.count()), true, {}}, now);
  }
  const auto limit = pace_.limit_of(in_flight_.oldest_floor()) + kRankGrace;
  const auto began = in_flight_.oldest_began();
  if (!began || now - *began <= limit) return;
  const std::vector<int32_t> ranks = in_flight_.unanswered();
  lose_group({fmt::format("ranks {} have not answered in {} ms", fmt::join(ranks, ", "), limit.count()), true, ranks},
             now);
}

// ---- what follows

// Does everything that can be done now.
void ServingCore::pump(TimePoint now) {
  send_grammars(now);
  send_plans(now);
  take_what_the_engine_wants();
  give_events();
  send_grammars(now);  // those that have ended have left room
}

void ServingCore::send_plans(TimePoint now) {
  while (group_.serving()) {
    auto plan = engine_->plan();
    if (!plan) return;
    if (in_flight_.size() > 0) ++sent_ahead_;
    in_flight_.sent(*plan, now, pace_.floor_of(*plan));
    for (const engine::SequenceStart& start : plan->starts) {
      if (start.sampling.answer.grammar_kind >= 0) grammars_.require(start.sampling.answer.grammar);
    }
    send_grammars(now);
    step_totals_.count_tokens(*plan);
    for (const Id id : engine_->take_started()) started_.push_back({id, now});
    effects_.push_back(SendPlan{*std::move(plan)});
  }
}

void ServingCore::send_grammars(TimePoint now) {
  for (GroupOrder& order : grammars_.take_orders(now)) effects_.push_back(SendToRanks{std::move(order)});
}

void ServingCore::take_what_the_engine_wants() {
  if (!engine_) return;
  for (engine::AdapterCall& call : engine_->take_adapter_calls()) {
    if (auto* acquire = std::get_if<engine::AcquireAdapter>(&call)) {
      effects_.push_back(Acquire{acquire->id, std::move(acquire->digest)});
    } else {
      auto& release = std::get<engine::ReleaseAdapter>(call);
      effects_.push_back(Release{release.id, std::move(release.digest)});
    }
  }
  std::vector<engine::Event> events = engine_->take_events();
  if (events_.empty()) {
    events_ = std::move(events);
  } else {
    std::move(events.begin(), events.end(), std::back_inserter(events_));
  }
}

void ServingCore::give_events() {
  if (events_.empty()) return;
  for (engine::Event& event : events_) end_claim(event);
  effects_.push_back(Events{std::exchange(events_, {}), std::exchange(started_, {})});
}

void ServingCore::end_claim(engine::Event& event) {
  const auto end = end_of(event);
  if (!end) return;
  grammars_.release(end->id);
  const auto claim = claims_.find(end->id);
  const bool claimed = claim != claims_.end();
  if (const auto* failed = std::get_if<engine::Boxed<engine::FailEvent>>(&event)) {
    engine::FailEvent failure = *failed;
    if (failure.is_its_own) failure.error.code = engine::ErrorCode::invalid_request;
    if (end->outcome == AdapterOutcome::no_token) {  // the engine knows no names
      const std::string whose = claimed ? fmt::format("adapter {}: ", claim->second) : "the base model: ";
      failure.error.message = whose + failure.error.message;
    }
    event = engine::Boxed<engine::FailEvent>(std::move(failure));
  }
  if (!claimed) return;
  effects_.push_back(Unclaim{end->id, end->outcome});
  claims_.erase(claim);
}

std::optional<engine::EngineStats> ServingCore::engine_stats() const {
  if (!engine_) return std::nullopt;
  return engine_->stats();
}

}  // namespace lorikeet::actors
