#include "actors/head/gateway.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <variant>

#include "actors/head/administration.h"
#include "actors/head/asked_request.h"
#include "actors/head/live_answer.h"
#include "actors/head/live_requests.h"
#include "actors/head/tenant_limits.h"
#include "comm/client/limits.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::milliseconds kDeadlineInterval{250};
const Grant kEverything;

uint64_t first_seed(uint64_t seed) {
  return seed != 0 ? seed : (uint64_t{std::random_device()()} << 32) ^ std::random_device()();
}

class Gateway {
 public:
  using TimePoint = caf::actor_clock::time_point;

  Gateway(GatewayActor::pointer self, GatewaySetup setup)
      : self_(self),
        setup_(std::move(setup)),
        seeds_(first_seed(setup_.seed)),
        limits_(setup_.tenants),
        administration_(self_, setup_) {}

  // ---- clients

  void said(ClientSaid& said) {
    const uint64_t client = said.client;
    if (const auto* generated = std::get_if<comm::GenerateRequest>(said.message.get())) {
      std::shared_ptr<const comm::GenerateRequest> request(std::move(said.message), generated);
      generate(client, request, said.grant ? *said.grant : kEverything, said.is_counted);
      if (request) let_go(std::move(request));
    } else if (const auto* cancel = std::get_if<comm::Cancel>(said.message.get())) {
      if (const auto ids = live_.choices(client, cancel->id); !ids.empty()) {
        for (const engine::SequenceId id : ids) end(id, engine::FinishReason::abort);
      } else if (const auto text = long_texts_.extract({client, cancel->id})) {
        *text.mapped().wanted = false;
        const LongText& asked = text.mapped();
        for (comm::Done& done : aborted(cancel->id, asked.seed, asked.n)) setup_.answer(client, std::move(done));
        note_whether_drained();
      }
    } else {
      administration_.said(said, draining_, live_.size() + long_texts_.size());
    }
  }

  void gone(const ClientGone& gone) {
    const auto why = gone.left ? LiveRequests::Client::left : LiveRequests::Client::answered;
    for (const engine::SequenceId id : live_.abandon(gone.client, why)) end(id, engine::FinishReason::abort);
    const auto begin = long_texts_.lower_bound({gone.client, ""});
    const auto end_of_client = long_texts_.lower_bound({gone.client + 1, ""});
    for (auto it = begin; it != end_of_client; ++it) *it->second.wanted = false;
    long_texts_.erase(begin, end_of_client);
    note_whether_drained();
  }

  // ---- the engine

  void take(EngineEvents& batch) {
    if (batch.started && setup_.metrics) {
      for (const StartedRequest& started : *batch.started) setup_.metrics->started(started.id, started.when);
    }
    std::vector<engine::SequenceId> streamed;
    for (engine::Event& event : *batch.events) {
      if (const auto* token = std::get_if<engine::TokenEvent>(&event)) {
        if (take_token(*token)) streamed.push_back(token->id);
      } else if (const auto* prompt = std::get_if<engine::Boxed<engine::PromptLogprobsEvent>>(&event)) {
        if (LiveRequest* request = live_.find(prompt->id)) add_prompt_logprobs(*request, *prompt);
      } else if (const auto* finish = std::get_if<engine::FinishEvent>(&event)) {
        take_finish(*finish);
      } else {
        take_failure(std::get<engine::Boxed<engine::FailEvent>>(event));
      }
    }
    for (const engine::SequenceId id : streamed) {
      if (LiveRequest* request = live_.find(id)) {
        count_tokens(id, *request);
        send_delta(*request);
      }
    }
  }

  // ---- deadlines

  void tick() {
    waits_for_deadlines_ = false;
    while (!deadlines_.empty() && deadlines_.begin()->first <= now()) {
      const engine::SequenceId id = deadlines_.extract(deadlines_.begin()).value().second;
      LiveRequest* request = live_.find(id);
      if (request == nullptr || request->ended || request->abandoned) continue;
      request->timed_out = true;
      end(id, engine::FinishReason::abort);
    }
    if (!deadlines_.empty()) wait_for_deadlines();
  }

  // ---- stopping

  caf::result<bool> drain(Drain& drain) {
    draining_ = std::move(drain.why);
    if (!drain.serves) return true;  // no ranks have ever served: waiting requests cannot finish
    drained_ = self_->make_response_promise<bool>();
    const auto promise = *drained_;
    note_whether_drained();
    return promise;
  }

  void stop(const StopServing& stop) {
    for (const engine::SequenceId id : live_.ids()) {
      take_failure({id, {engine::ErrorCode::shutting_down, stop.why}});
    }
    for (const auto& [key, text] : std::exchange(long_texts_, {})) {
      *text.wanted = false;
      refuse(key.first, key.second, {engine::ErrorCode::shutting_down, stop.why});
    }
    administration_.stop(stop.why);
    self_->quit();
  }

 private:
  // Takes the request where it is prepared elsewhere.
  void generate(uint64_t client, std::shared_ptr<const comm::GenerateRequest>& request, const Grant& grant,
                bool is_counted) {
    const std::string& name = request->id;
    if (name.size() > comm::kMaxIdBytes) {
      return refuse(
          client, name.substr(0, comm::kMaxIdBytes),
          {engine::ErrorCode::invalid_request,
           fmt::format("the request's id has {} bytes, at most {} are allowed", name.size(), comm::kMaxIdBytes)});
    }
    if (is_running(client, name)) {
      // Under an id of its own, or it would pass for the answer of the one that runs.
      std::string own = "duplicate:" + name;
      while (is_running(client, own)) own += "'";
      return refuse(
          client, own,
          {engine::ErrorCode::invalid_request, fmt::format("another request of the id \"{}\" is still running", name)});
    }
    if (draining_) return refuse(client, name, {engine::ErrorCode::shutting_down, *draining_});
    if (!grant.may_use(request->adapter)) {
      return refuse(client, {name, "forbidden", grant.refusal_of(*request->adapter)});
    }
    if (is_counted) {
      if (client == refused_exchange_) return;  // answered, with the part of it that was counted
    } else if (const auto refusal = limits_.take_request(grant.tenant, now())) {
      if (setup_.is_counted_by_its_door && setup_.is_counted_by_its_door(client)) refused_exchange_ = client;
      return refuse(client, name, *refusal);
    }
    const uint64_t seed = seeds_() >> 11;  // 53 bits, so that the reported seed survives JSON numbers
    const size_t bytes = bytes_of(*request);
    // A client's template may run long, and a grammar takes long to compile.
    const bool may_take_long = request->chat_template || wants_grammar(*request);
    if (bytes <= setup_.short_text_bytes && !may_take_long) {
      return admit(client, asked_for(*request, grant, setup_.request_timeout, now()),
                   setup_.validation->prepare(*request, seed));
    }
    if (long_bytes_ + bytes > setup_.max_long_bytes) {
      return refuse(
          client, name,
          {engine::ErrorCode::queue_full, fmt::format("{} bytes of long texts are waiting, at most {} are allowed",
                                                      long_bytes_, setup_.max_long_bytes)});
    }
    if (long_texts_.size() >= setup_.max_long_texts) {
      return refuse(
          client, name,
          {engine::ErrorCode::queue_full,
           fmt::format("{} long texts are waiting, as many as --max-num-queued-reqs allows", long_texts_.size())});
    }
    const AskedRequest asked = asked_for(*request, grant, setup_.request_timeout, now());
    prepare_elsewhere(client, asked, std::move(request), bytes, seed);
  }

  // Freeing a million messages takes time, too, which this thread does not have.
  void let_go(std::shared_ptr<const comm::GenerateRequest> request) {
    if (!request->messages || request->messages->size() <= kCountedMessages) return;
    caf::anon_send(setup_.text_preparer,
                   PrepareText{std::move(request), 0, std::make_shared<std::atomic<bool>>(false)});
  }

  bool is_running(uint64_t client, const std::string& name) const {
    return live_.find(client, name).has_value() || long_texts_.contains({client, name});
  }

  // Only drops its reference: the text preparer frees the request.
  void prepare_elsewhere(uint64_t client, const AskedRequest& asked,
                         std::shared_ptr<const comm::GenerateRequest> request, size_t bytes, uint64_t seed) {
    const auto wanted = std::make_shared<std::atomic<bool>>(true);
    long_texts_[{client, asked.name}] = {wanted, request->seed.value_or(seed),
                                         std::clamp(asked.n, 1, comm::kMaxChoices)};
    long_bytes_ += bytes;
    // False: it was cancelled meanwhile, or its client is gone.
    const auto is_wanted = [this, client, asked, bytes, wanted] {
      long_bytes_ -= bytes;
      if (*wanted) long_texts_.erase({client, asked.name});
      return wanted->load();
    };
    self_->request(setup_.text_preparer, caf::infinite, PrepareText{std::move(request), seed, wanted})
        .then(
            [this, client, asked, is_wanted](TextPrepared& prepared) {
              if (is_wanted()) admit(client, asked, std::move(*prepared.result));
            },
            [this, client, asked, is_wanted](caf::error& error) {
              if (!is_wanted()) return;
              refuse(client, asked.name,
                     {engine::ErrorCode::internal, "the text cannot be prepared: " + self_->system().render(error)});
            });
  }

  void admit(uint64_t client, const AskedRequest& request, PreparationResult prepared) {
    if (!prepared) return refuse(client, request.name, prepared.error());
    const int64_t tokens =
        static_cast<int64_t>(prepared->request.prompt.size()) + prepared->request.sampling.max_tokens;
    if (const auto refusal = limits_.take_tokens(request.tenant, tokens * request.n)) {
      return refuse(client, request.name, *refusal);
    }
    const auto choices = std::make_shared<Choices>(Choices{request.n, request.n, 0});
    for (int32_t index = 0; index < request.n; ++index) {
      const engine::SequenceId id(++last_id_);
      TextStream text(setup_.validation->context().tokenizer, prepared->text);
      LiveRequest& live = live_.add(id, client, request.name, std::move(text), index_of(index, request.n));
      live.choices = choices;
      live.charged_tokens = tokens;
      auto sequence = std::make_shared<engine::Request>(prepared->request);
      sequence->id = id;
      sequence->sampling.seed += static_cast<uint64_t>(index);
      begin_answer(live, request, *prepared, sequence->sampling.seed);
      if (live.deadline) deadlines_.emplace(*live.deadline, id);
      if (setup_.metrics) {
        setup_.metrics->admitted(id, sequence->adapter, live.prompt_tokens, std::chrono::steady_clock::now(),
                                 sequence->sampling.max_tokens);
      }
      self_->send(setup_.scheduler, Submit{std::move(sequence)});
    }
    if (!deadlines_.empty() && !waits_for_deadlines_) wait_for_deadlines();
  }

  TimePoint now() const { return self_->clock().now(); }

  void wait_for_deadlines() {
    waits_for_deadlines_ = true;
    self_->delayed_send(caf::actor_cast<GatewayActor>(self_), kDeadlineInterval, Tick{});
  }

  void refuse(uint64_t client, const std::string& name, const engine::RequestError& error) {
    refuse(client, failure_of(name, error));
  }

  void refuse(uint64_t client, comm::Failure failure) {
    setup_.answer(client, std::move(failure));
    note_whether_drained();
  }

  // The refusal of a request for which the tenant's limits have no room now, or never.
  void refuse(uint64_t client, const std::string& name, const TenantLimits::Refusal& refusal) {
    if (refusal.retry_after_s == 0) return refuse(client, {name, "invalid_request", refusal.message});
    refuse(client, {name, "rate_limited", refusal.message, refusal.retry_after_s});
  }

  // Asks the engine to end a request; its FinishEvent brings the final answer.
  void end(engine::SequenceId id, engine::FinishReason reason) { self_->send(setup_.scheduler, Finish{id, reason}); }

  bool take_token(const engine::TokenEvent& token) {
    LiveRequest* request = live_.find(token.id);
    if (request == nullptr || request->ended || request->abandoned || request->prompt_only) return false;
    add_token(*request, token, seeds_);
    if (request->text.matched()) {
      request->ended = true;
      end(token.id, engine::FinishReason::stop);
    }
    return true;
  }

  void take_finish(const engine::FinishEvent& finish) {
    LiveRequest* request = live_.find(finish.id);
    if (request == nullptr) return;
    if (request->timed_out) {
      return answer_finally(
          finish.id, *request,
          comm::Failure{request->name, "timed_out", fmt::format("it was not done within {}", request->time_limit)});
    }
    answer_finally(finish.id, *request, finish_answer(*request, finish, seeds_));
  }

  void take_failure(const engine::FailEvent& failure) {
    LiveRequest* request = live_.find(failure.id);
    if (request == nullptr) return;
    if (request->ended) {  // the answer is complete; the failure came after it
      engine::FinishEvent finish;
      finish.id = failure.id;
      finish.reason = engine::FinishReason::stop;
      return take_finish(finish);
    }
    answer_finally(failure.id, *request, failure_of(request->name, failure.error));
  }

  void count_tokens(engine::SequenceId id, const LiveRequest& request) {
    if (!setup_.metrics) return;
    setup_.metrics->generated(id, static_cast<int32_t>(request.delta.token_ids.size()),
                              std::chrono::steady_clock::now());
  }

  void note_end(engine::SequenceId id, const LiveRequest& request, const comm::ServerMessage& answer) {
    if (!setup_.metrics) return;
    const auto* done = std::get_if<comm::Done>(&answer);
    const auto* failure = std::get_if<comm::Failure>(&answer);
    EndedRequest ended =
        setup_.metrics->ended(id, done != nullptr ? done->finish_reason : "error", std::chrono::steady_clock::now(),
                              done != nullptr ? done->usage.cached_tokens : 0);
    const bool counted = setup_.is_counted_by_its_door && setup_.is_counted_by_its_door(request.client);
    Choices& choices = *request.choices;
    choices.longest = std::max(choices.longest, request.completion_tokens);
    if (--choices.running == 0 && !counted) setup_.metrics->answered(choices.n, choices.longest);
    if (!setup_.log) return;
    ended.id = request.index ? fmt::format("{}/{}", request.name, *request.index) : request.name;
    ended.client_gone = request.client_gone;
    if (done != nullptr) ended.cached_tokens = done->usage.cached_tokens;
    if (failure != nullptr) add_failure(*failure, ended);
    setup_.log->ended(ended);
  }

  void answer_finally(engine::SequenceId id, LiveRequest& request, comm::ServerMessage answer) {
    count_tokens(id, request);
    note_end(id, request, answer);
    const bool failed = !request.abandoned && std::holds_alternative<comm::Failure>(answer);
    const std::pair<uint64_t, std::string> asked = {request.client, request.name};
    if (!request.abandoned) {
      send_delta(request);
      setup_.answer(request.client, std::move(answer));
    }
    limits_.give_tokens(request.tenant, request.charged_tokens);
    if (request.deadline) deadlines_.erase({*request.deadline, id});
    live_.erase(id);
    // One answer that fails takes the others to the same request with it.
    if (failed) {
      for (const auto other : live_.abandon(asked.first, asked.second)) end(other, engine::FinishReason::abort);
    }
    note_whether_drained();
  }

  void note_whether_drained() {
    if (!drained_ || live_.size() > 0 || !long_texts_.empty()) return;
    std::exchange(drained_, std::nullopt)->deliver(true);
  }

  void send_delta(LiveRequest& request) {
    if (says_nothing(request.delta)) return;
    setup_.answer(request.client, std::exchange(request.delta, empty_delta(request)));
  }

  GatewayActor::pointer self_;
  GatewaySetup setup_;
  std::mt19937_64 seeds_;
  TenantLimits limits_;
  uint64_t last_id_ = 0;
  std::optional<uint64_t> refused_exchange_;  // the latest HTTP exchange that a limit on requests refused
  LiveRequests live_;
  Administration administration_;
  struct LongText {
    std::shared_ptr<std::atomic<bool>> wanted;  // what the text preparer looks at before it begins
    uint64_t seed = 0;
    int32_t n = 1;  // answers
  };
  std::map<std::pair<uint64_t, std::string>, LongText> long_texts_;  // client and its name for the request -> the text
  size_t long_bytes_ = 0;                                            // that the text preparer has, wanted or not
  std::optional<std::string> draining_;                              // why no new requests are taken
  std::optional<caf::typed_response_promise<bool>> drained_;         // while somebody waits for the last request
  std::set<std::pair<TimePoint, engine::SequenceId>> deadlines_;     // of live requests
  bool waits_for_deadlines_ = false;                                 // a Tick is on its way
};

}  // namespace

GatewayActor::behavior_type gateway(GatewayActor::pointer self, GatewaySetup setup) {
  auto state = std::make_shared<Gateway>(self, std::move(setup));
  return {[state](ClientSaid& said) { state->said(said); },
          [state](const ClientGone& gone) { state->gone(gone); },
          [state](EngineEvents& events) { state->take(events); },
          [state](const StopServing& stop) { state->stop(stop); },
          [state](Drain& drain) { return state->drain(drain); },
          [state](Tick) { state->tick(); },
          [](Pulse) { return true; }};
}

}  // namespace lorikeet::actors
