// A serving core with all that surrounds it in a server, made of plain objects: ranks that check what they are told
// (tests/engine/fake_rank.h), an adapter cache, and clients that check what they get.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/head/serving_core.h"
#include "tests/engine/engine_harness.h"

namespace lorikeet::actors {

class ServingCoreHarness {
 public:
  using Id = ServingCore::Id;
  static constexpr int32_t kVocabulary = engine::testing::EngineHarness::kVocabulary;

  struct Client {
    engine::Request request;  // its adapter is a name
    std::vector<int32_t> tokens;
    bool started = false;
    std::optional<engine::FinishReason> finish;
    std::optional<engine::RequestError> failure;

    bool is_done() const { return finish || failure; }
  };

  bool restrain_next = false;  // the next request forbids some tokens
  std::string next_grammar;    // of the next request; empty: none
  uint64_t kv_epoch = 0;       // that ranks say their KV caches are of, when they form a group

  explicit ServingCoreHarness(int32_t num_ranks = 2) : ServingCoreHarness(config_of(num_ranks)) {}
  explicit ServingCoreHarness(const ServingCore::Config& config) : core(config), num_ranks_(config.ranks) {}

  static ServingCore::Config config_of(int32_t num_ranks) {
    ServingCore::Config config;
    config.engine.max_model_len = 64;
    config.engine.max_num_seqs = 4;
    config.engine.max_num_batched_tokens = 16;
    config.engine.max_num_queued_requests = 50;
    config.engine.block_size = 4;
    config.engine.max_plans_in_flight = 2;
    config.ranks = num_ranks;
    config.vocab_size = kVocabulary;
    return config;
  }

  // ---- what happens

  void form(int32_t num_blocks = 20) {
    engine_config_ = config_of(num_ranks_).engine;
    engine_config_.num_blocks = num_blocks;
    const uint64_t epoch = core.group().epoch();
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      ASSERT_TRUE(core.admit(rank, 100 + rank, epoch, "host", "cpu"));
    }
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      core.loaded(rank, {num_blocks + rank, 1, 1, 0, kv_epoch}, now);
      act();
    }
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      core.ready(rank, now);
      act();
    }
    ASSERT_TRUE(core.group().serving());
  }

  void lose(const std::string& why = "rank 1 died") {
    core.lose_group({why, false, {}}, now);
    act();
  }

  void start_epoch(bool by_rank = false) { start_epoch(by_rank, by_rank); }
  void start_epoch(bool by_rank, bool doubts_kv) {
    core.start_epoch(core.group().epoch() + 1, "rank 1 died", by_rank, doubts_kv, now);
    act();
  }

  Id submit(std::vector<int32_t> prompt, int32_t max_tokens, std::string adapter = "", bool prompt_logprobs = false) {
    auto request = std::make_shared<engine::Request>();
    request->id = Id(++last_id_);
    request->prompt = std::move(prompt);
    request->adapter = std::move(adapter);
    request->sampling.max_tokens = max_tokens;
    request->sampling.prompt_logprobs = prompt_logprobs;
    if (std::exchange(restrain_next, false)) request->sampling.bad_words = {{1, 1}};
    clients[request->id].request = *request;
    if (!next_grammar.empty()) {
      request->sampling.answer.grammar_kind = 1;
      request->sampling.answer.grammar = std::exchange(next_grammar, "");
    }
    core.submit(request, now);
    act();
    return Id(last_id_);
  }

  void cancel(Id id) {
    core.finish(id, engine::FinishReason::abort, now);
    act();
  }

  void resolve(Id id, const std::string& error = "") {
    const std::string name = resolving.at(id);
    resolving.erase(id);
    core.resolved(id, error.empty() ? digest_of(name) : "", error, now);
    act();
  }

  // All ranks answer of the grammar that was sent first.
  void compile(const std::string& error = "", uint64_t bytes = 100) {
    const std::string digest = compiling.front();
    compiling.pop_front();
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      core.grammar_compiled(rank, {digest, bytes, rank == 0 ? "" : error}, now);
      act();
    }
  }

  // The cache answers the oldest question for a slot.
  void grant(const std::string& error = "") { answer(take_question(), epoch_, error); }

  ServingCore::Acquire take_question() {
    ServingCore::Acquire asked = acquiring.front();
    acquiring.pop_front();
    return asked;
  }

  void answer(const ServingCore::Acquire& asked, uint64_t epoch, const std::string& error = "") {
    const int32_t slot = slot_of(asked.digest);
    if (error.empty() && epoch == epoch_ && !ranks.empty()) {
      leases.insert(asked.id);
      const uint64_t content = engine::testing::FakeAdapterCache::content_of(asked.digest);
      for (auto& rank : ranks) rank.set_adapter(engine::SlotId(slot), content);
    }
    core.acquired(asked, epoch, error.empty() ? engine::SlotId(slot) : engine::kBaseSlot, error, false, now);
    act();
  }

  // What a rank answers to the oldest plan that it has not executed.
  engine::StepResult execute(int32_t rank) {
    auto& executed = executed_[static_cast<size_t>(rank)];
    engine::StepResult result = ranks[static_cast<size_t>(rank)].execute(plans.at(executed));
    ++executed;
    if (rank != 0) {
      for (engine::RowResult& row : result.rows) row.logprobs.clear();
      result.prompts.clear();
    }
    result.rank = rank;
    forget_executed_plans();
    return result;
  }

  bool can_execute(int32_t rank) const {
    return !ranks.empty() && executed_.at(static_cast<size_t>(rank)) < plans.size();
  }

  void say(int32_t rank, engine::StepResult result) {
    core.result(rank, std::move(result), now);
    act();
  }

  // Every rank that has a plan to execute answers it; false where none has.
  bool step() {
    std::vector<engine::StepResult> results;
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      if (can_execute(rank)) results.push_back(execute(rank));
    }
    for (engine::StepResult& result : results) say(result.rank, std::move(result));
    return !results.empty();
  }

  // Until nothing is left to do; the cache answers everything.
  void run() {
    for (;;) {
      if (!resolving.empty()) {
        resolve(resolving.begin()->first);
      } else if (!acquiring.empty()) {
        grant();
      } else if (!compiling.empty()) {
        compile();
      } else if (!step()) {
        return;
      }
      if (::testing::Test::HasFailure()) return;
    }
  }

  void expect_nothing_left() const {
    for (const auto& [id, client] : clients) EXPECT_TRUE(client.is_done()) << "no answer to " << id.value();
    EXPECT_TRUE(claims.empty()) << "request " << claims.begin()->value() << " is over and still holds a content";
    EXPECT_TRUE(leases.empty()) << "request " << leases.begin()->value() << " is over and still holds a slot";
    EXPECT_EQ(core.held().size(), 0u);
    if (const auto stats = core.engine_stats()) {
      EXPECT_EQ(stats->waiting + stats->running + stats->preempted, 0);
      EXPECT_EQ(stats->blocks_free, stats->blocks_total);
    }
  }

  // From this position on the logits of a request are not finite, or it forbids every token.
  void diverge(Id id, int32_t position, bool forbids = false) {
    diverging_[id] = position;
    if (forbids) forbidding_.insert(id);
    for (auto& rank : ranks) tell_what_diverges(rank);
  }

  static std::string digest_of(const std::string& name) { return name.empty() ? "" : "digest of " + name; }

  ServingCore core;
  ServingCore::TimePoint now;
  std::map<Id, Client> clients;
  std::vector<std::string> log;         // what the core wanted, plans and events left out
  std::deque<engine::StepPlan> plans;   // sent, and not executed by all ranks
  std::map<Id, std::string> resolving;  // questions to the cache: the adapter's name
  std::deque<ServingCore::Acquire> acquiring;
  std::deque<std::string> compiling;            // digests of grammars that were sent, and not answered
  std::map<std::string, std::string> grammars;  // on the ranks: text by digest
  std::set<Id> claims, leases;
  std::vector<engine::testing::FakeRank> ranks;
  std::optional<ServingCore::GroupLost> lost;  // the last one

 private:
  void act() {
    for (auto& effect : core.take_effects()) std::visit([this](auto& wanted) { perform(wanted); }, effect);
  }

  void tell_what_diverges(engine::testing::FakeRank& rank) const {
    rank.diverging = diverging_;
    rank.forbidding = forbidding_;
  }

  void perform(ServingCore::FormGroup& form) { log.push_back("form " + std::to_string(form.num_blocks)); }

  void perform(ServingCore::GroupServes& serves) {
    log.push_back("serves " + std::to_string(serves.epoch));
    epoch_ = serves.epoch;
    executed_.assign(static_cast<size_t>(num_ranks_), 0);
    for (int32_t i = 0; i < num_ranks_; ++i) ranks.emplace_back(engine_config_, kVocabulary);
    for (auto& rank : ranks) tell_what_diverges(rank);
  }

  void perform(ServingCore::GroupLost& what) {
    log.push_back("lost " + std::to_string(what.epoch));
    lost = what;
    plans.clear();
    ranks.clear();
    executed_.clear();
    leases.clear();
    compiling.clear();
    grammars.clear();
  }

  void perform(ServingCore::SendToRanks& send) {
    if (const auto* grammar = std::get_if<GrammarText>(&send.order)) {
      EXPECT_TRUE(grammars.emplace(grammar->digest, grammar->text).second) << "sent twice: " << grammar->text;
      compiling.push_back(grammar->digest);
      log.push_back("grammar " + grammar->text);
    } else {
      const std::string& digest = std::get<GrammarDrop>(send.order).digest;
      log.push_back("drop " + grammars[digest]);
      EXPECT_EQ(grammars.erase(digest), 1u);
    }
  }

  void perform(ServingCore::SendPlan& send) {
    EXPECT_EQ(send.plan.epoch.value(), epoch_);
    for (const engine::SequenceStart& start : send.plan.starts) {
      const engine::AnswerRules& rules = start.sampling.answer;
      EXPECT_TRUE(rules.grammar_kind < 0 || grammars.contains(rules.grammar)) << "not on the ranks: " << rules.grammar;
    }
    for (const engine::SequenceStart& start : send.plan.starts) {
      EXPECT_EQ(leases.contains(start.id), start.slot != engine::kBaseSlot) << "the lease of " << start.id.value();
    }
    plans.push_back(std::move(send.plan));
  }

  void perform(ServingCore::Resolve& ask) {
    log.push_back("resolve " + ask.name);
    EXPECT_TRUE(claims.insert(ask.id).second) << "claimed twice: " << ask.id.value();
    resolving[ask.id] = ask.name;
  }

  void perform(ServingCore::Unclaim& over) {
    constexpr const char* kOutcomes[] = {"none", "success", "no_token"};
    log.push_back("unclaim " + std::to_string(over.id.value()) + ": " + kOutcomes[static_cast<size_t>(over.outcome)]);
    EXPECT_EQ(claims.erase(over.id), 1u) << "request " << over.id.value() << " held no content";
  }

  void perform(ServingCore::Acquire& ask) {
    log.push_back("acquire " + ask.digest);
    EXPECT_TRUE(claims.contains(ask.id));
    acquiring.push_back(ask);
  }

  // Gives a lease back or withdraws a question; of a question that the test has taken nothing is known here.
  void perform(ServingCore::Release& over) {
    log.push_back("release " + over.digest);
    leases.erase(over.id);
    std::erase_if(acquiring, [&](const auto& asked) { return asked.id == over.id; });
  }

  void perform(ServingCore::Events& events) {
    for (const StartedRequest& started : events.started) {
      EXPECT_FALSE(std::exchange(clients.at(started.id).started, true)) << "request " << started.id.value();
    }
    for (const engine::Event& event : events.events) {
      std::visit([this](const auto& e) { see(clients.at(e.id), e); }, event);
    }
  }

  void see(Client& client, const engine::PromptLogprobsEvent&) { EXPECT_FALSE(client.is_done()); }

  void see(Client& client, const engine::TokenEvent& event) {
    EXPECT_FALSE(client.is_done()) << "a token after the end of " << event.id.value();
    EXPECT_TRUE(client.started) << "a token before the start of " << event.id.value();
    client.tokens.push_back(event.token_id);
  }

  void see(Client& client, const engine::FinishEvent& event) {
    EXPECT_FALSE(client.is_done()) << "two ends of " << event.id.value();
    client.finish = event.reason;
    expect_tokens(client, event.reason != engine::FinishReason::abort);
  }

  void see(Client& client, const engine::FailEvent& event) {
    EXPECT_FALSE(client.is_done()) << "two ends of " << event.id.value();
    client.failure = event.error;
    expect_tokens(client, false);
  }

  // Those that the request would have got alone, whatever happened to the ranks.
  static void expect_tokens(const Client& client, bool all) {
    engine::Request request = client.request;
    request.adapter = digest_of(request.adapter);
    std::vector<int32_t> expected = engine::testing::EngineHarness::expected_tokens(request);
    ASSERT_LE(client.tokens.size(), expected.size());
    if (!all) expected.resize(client.tokens.size());
    EXPECT_EQ(client.tokens, expected) << "request " << request.id.value();
  }

  int32_t slot_of(const std::string& digest) {
    return slots_.try_emplace(digest, static_cast<int32_t>(slots_.size())).first->second;
  }

  void forget_executed_plans() {
    while (*std::min_element(executed_.begin(), executed_.end()) > 0) {
      plans.pop_front();
      for (size_t& executed : executed_) --executed;
    }
  }

  const int32_t num_ranks_;
  engine::EngineConfig engine_config_;
  uint64_t last_id_ = 0;
  uint64_t epoch_ = 0;            // that was served last
  std::vector<size_t> executed_;  // [ranks]: of `plans`
  std::map<std::string, int32_t> slots_;
  std::map<Id, int32_t> diverging_;
  std::set<Id> forbidding_;
};

}  // namespace lorikeet::actors
