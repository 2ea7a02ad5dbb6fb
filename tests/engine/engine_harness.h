// An engine with all that surrounds it in a server, made of plain objects: a rank, an adapter cache, and clients that
// remember what they were told and check it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/fake_rank.h"

namespace lorikeet::engine::testing {

// Adapters named by digest, `num_slots` of them at a time on the rank. Answers in the order of the asking, when told
// to.
class FakeAdapterCache {
 public:
  explicit FakeAdapterCache(int32_t num_slots) : slots_(static_cast<size_t>(num_slots)) {}

  static uint64_t content_of(const std::string& digest) {
    return digest.empty() ? 0 : mix_digest(std::hash<std::string>{}(digest), 1);
  }

  void ask(const AcquireAdapter& call) {
    EXPECT_FALSE(call.digest.empty()) << "the base model needs no lease";
    EXPECT_TRUE(asked_ever_.insert(call.id).second) << "asked twice in an epoch for " << call.id.value();
    asked_.push_back(call);
  }

  void release(const ReleaseAdapter& call) {
    const auto question = std::ranges::find(asked_, call.id, &AcquireAdapter::id);
    if (question != asked_.end()) {
      asked_.erase(question);
      return;
    }
    const auto lease = leases_.find(call.id);
    ASSERT_NE(lease, leases_.end()) << "no lease of " << call.id.value() << " to release";
    EXPECT_EQ(slots_[lease->second].digest, call.digest);
    --slots_[lease->second].num_leases;
    leases_.erase(lease);
    asked_ever_.erase(call.id);  // who has given one back may ask for another
  }

  // Answers the oldest question, loading the adapter into a slot without leases where it has none. False: nothing was
  // asked, or every slot is leased.
  bool grant_next(Engine& engine, FakeRank& rank) {
    if (asked_.empty()) return false;
    const AcquireAdapter call = asked_.front();
    std::optional<size_t> slot;
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].num_leases == 0 && !slot) slot = i;
      if (slots_[i].digest == call.digest) {
        slot = i;
        break;
      }
    }
    if (!slot) return false;
    asked_.pop_front();
    slots_[*slot].digest = call.digest;
    ++slots_[*slot].num_leases;
    leases_[call.id] = *slot;
    const SlotId id(static_cast<int32_t>(*slot));
    rank.set_adapter(id, content_of(call.digest));
    engine.adapter_ready(call.id, id);
    return true;
  }

  // Returns whose question failed.
  std::optional<SequenceId> fail_next(Engine& engine) {
    if (asked_.empty()) return std::nullopt;
    const SequenceId id = asked_.front().id;
    asked_.pop_front();
    engine.adapter_failed(id, "the adapter's files are gone");
    return id;
  }

  // Unloads every adapter that nobody leases.
  void evict_idle(FakeRank& rank) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].num_leases > 0) continue;
      slots_[i].digest.clear();
      rank.clear_adapter(SlotId(static_cast<int32_t>(i)));
    }
  }

  // The ranks are gone, and their slots and leases with them.
  void forget_slots() {
    EXPECT_TRUE(asked_.empty()) << "what was asked for the ranks that are gone is still wanted";
    leases_.clear();
    asked_ever_.clear();
    slots_.assign(slots_.size(), {});
  }

  size_t num_leases() const { return leases_.size(); }
  size_t num_asked() const { return asked_.size(); }
  bool has_lease(SequenceId id) const { return leases_.contains(id); }

 private:
  struct Slot {
    std::string digest;
    int64_t num_leases = 0;
  };
  std::vector<Slot> slots_;
  std::deque<AcquireAdapter> asked_;
  std::set<SequenceId> asked_ever_;
  std::map<SequenceId, size_t> leases_;
};

// What a client sees of its request.
struct Client {
  Request request;
  std::vector<int32_t> tokens;
  int32_t num_prompt_logprobs = 0;
  std::optional<FinishEvent> finish;
  std::optional<FailEvent> failure;

  bool is_done() const { return finish || failure; }
};

class EngineHarness {
 public:
  static constexpr int32_t kVocabulary = 50;

  explicit EngineHarness(const EngineConfig& c, int32_t num_slots = 4)
      : config(c), engine(c), rank(c, kVocabulary), adapters(num_slots) {
    engine.start_epoch(Epoch(1));
  }

  bool add(Request request) {
    const SequenceId id = request.id;
    if (!engine.add(request)) return false;
    clients[id].request = std::move(request);
    take_all();
    return true;
  }

  // A request of the base model with the prompt given. Returns its id.
  SequenceId add(std::vector<int32_t> prompt, int32_t max_tokens, std::string adapter = "") {
    Request request;
    request.id = SequenceId(clients.empty() ? 1 : clients.rbegin()->first.value() + 1);
    request.prompt = std::move(prompt);
    request.adapter = std::move(adapter);
    request.sampling.max_tokens = max_tokens;
    const SequenceId id = request.id;
    EXPECT_TRUE(add(std::move(request)));
    return id;
  }

  void cancel(SequenceId id) {
    engine.finish(id, FinishReason::abort);
    take_all();
  }

  // Makes one plan, checks its blocks and puts it in flight.
  bool plan() {
    const uint64_t turns = engine.stats().turns;
    auto plan = engine.plan();
    const bool ended_turns = engine.stats().turns > turns;
    take_all();
    if (!plan) return false;
    EXPECT_FALSE(plan->rows.empty());
    for (const SequenceId id : plan->finished) tables_.erase(id);
    for (const SequenceId id : plan->finished) {
      if (!clients.at(id).is_done() && !ended_turns) expect_youngest(id);
    }
    for (const SequenceStart& start : plan->starts) {
      starts.push_back(start);
      first_starts_.try_emplace(start.id, first_starts_.size());
      EXPECT_TRUE(tables_.try_emplace(start.id).second);
      EXPECT_TRUE(clients.at(start.id).request.adapter.empty() || adapters.has_lease(start.id)) << "not leased";
    }
    for (const BlockAppend& append : plan->blocks) {
      tables_.at(append.id).insert(append.blocks.begin(), append.blocks.end());
    }
    std::set<BlockId> held;
    for (const auto& [id, table] : tables_) held.insert(table.begin(), table.end());
    const int32_t held_or_kept = config.num_blocks - engine.stats().blocks_free;
    if (engine.stats().kept == 0) {
      EXPECT_EQ(held_or_kept, static_cast<int32_t>(held.size())) << "a block leaked";
    } else {
      EXPECT_GT(held_or_kept, static_cast<int32_t>(held.size())) << "what is kept is in blocks";
    }
    EXPECT_EQ(engine.stats().running, static_cast<int32_t>(tables_.size()));
    in_flight.push_back(std::move(*plan));
    return true;
  }

  // Lets the rank execute the oldest plan, and the engine see the result.
  bool absorb() {
    if (in_flight.empty()) return false;
    const StepPlan executed = std::move(in_flight.front());
    in_flight.pop_front();
    engine.absorb(rank.execute(executed));
    take_all();
    return true;
  }

  bool grant_next() {
    const bool granted = adapters.grant_next(engine, rank);
    take_all();
    return granted;
  }

  void grant_leases() {
    while (grant_next()) {
    }
  }

  void fail_next_lease() {
    const auto id = adapters.fail_next(engine);
    const bool was_live = id && !clients.at(*id).is_done();
    take_all();
    if (was_live) {
      EXPECT_EQ(clients.at(*id).failure->error.code, ErrorCode::adapter_failed);
    }
  }

  void evict_idle_adapters() { adapters.evict_idle(rank); }

  // As many plans as may be in flight, then one result. False: nothing to do.
  bool step() {
    grant_leases();
    while (plan()) {
    }
    return absorb() || grant_next();  // the latter: of a request that is to be tried alone
  }

  // Until nothing is left to do; returns the number of steps. Everything must have ended then.
  int run() {
    int steps = 0;
    while (step()) {
      if (++steps > 1000000 || ::testing::Test::HasFailure()) break;
    }
    expect_nothing_left();
    return steps;
  }

  // The ranks die, and their memory with them.
  void lose_ranks() {
    stop_ranks();
    engine.forget_kv();
    take_all();
    keeps_memory_ = false;
  }

  // The ranks die, and their memory stays.
  void stop_ranks() {
    engine.ranks_lost();
    rank.stop_with(in_flight);
    keeps_memory_ = true;
    in_flight.clear();
    tables_.clear();
    take_all();
    adapters.forget_slots();
  }

  // The ranks were lost by a fault of their own.
  void fault() {
    lose_ranks();
    engine.blame_requests("rank 1 died");
    take_all();
  }

  // With as many blocks as before, or another number.
  void start_epoch(std::optional<int32_t> num_blocks = std::nullopt) {
    if (num_blocks && *num_blocks != config.num_blocks) {
      config.num_blocks = *num_blocks;
      engine.resize(*num_blocks);
      keeps_memory_ = false;
    }
    if (!keeps_memory_) {
      auto diverging = std::move(rank.diverging);
      auto forbidding = std::move(rank.forbidding);
      rank = FakeRank(config, kVocabulary);
      rank.diverging = std::move(diverging);
      rank.forbidding = std::move(forbidding);
    }
    engine.start_epoch(Epoch(++epoch_));
    take_all();
  }

  void expect_nothing_left() {
    for (const auto& [id, client] : clients) EXPECT_TRUE(client.is_done()) << "no final event for " << id.value();
    const EngineStats stats = engine.stats();
    EXPECT_EQ(stats.waiting, 0);
    EXPECT_EQ(stats.running, 0);
    EXPECT_EQ(stats.preempted, 0);
    EXPECT_EQ(stats.plans_in_flight, 0);
    EXPECT_EQ(stats.blocks_free, config.num_blocks);
    EXPECT_EQ(adapters.num_leases(), 0u);
    EXPECT_EQ(adapters.num_asked(), 0u);
  }

  // The tokens that a request gets when it is alone in the world.
  static std::vector<int32_t> expected_tokens(const Request& request) {
    std::vector<int32_t> context = request.prompt, tokens;
    uint64_t digest = digest_of(FakeAdapterCache::content_of(request.adapter), context, context.size());
    const std::vector<int32_t>& stops = request.sampling.stop_token_ids;
    for (int32_t i = 0; i < request.sampling.max_tokens; ++i) {
      tokens.push_back(token_drawn(digest, kVocabulary));
      if (std::ranges::find(stops, tokens.back()) != stops.end()) break;
      digest = mix_digest(digest, static_cast<uint64_t>(tokens.back()));
    }
    return tokens;
  }

  EngineConfig config;
  Engine engine;
  FakeRank rank;
  FakeAdapterCache adapters;
  std::map<SequenceId, Client> clients;
  std::deque<StepPlan> in_flight;
  std::vector<SequenceStart> starts;  // of all plans made

 private:
  void take_all() {
    for (const Event& event : engine.take_events()) {
      std::visit([this](const auto& e) { see(clients.at(e.id), e); }, event);
    }
    for (const AdapterCall& call : engine.take_adapter_calls()) {
      if (const auto* acquire = std::get_if<AcquireAdapter>(&call)) {
        adapters.ask(*acquire);
      } else {
        adapters.release(std::get<ReleaseAdapter>(call));
      }
    }
  }

  void see(Client& client, const PromptLogprobsEvent& event) {
    EXPECT_FALSE(client.is_done());
    EXPECT_TRUE(client.request.sampling.prompt_logprobs);
    EXPECT_TRUE(client.tokens.empty());
    EXPECT_EQ(event.start, client.num_prompt_logprobs + 1) << "each prompt position once, in order";
    for (size_t i = 0; i < event.values.size(); ++i) {
      EXPECT_EQ(event.values[i], -static_cast<float>(event.start + static_cast<int32_t>(i)));
    }
    client.num_prompt_logprobs += static_cast<int32_t>(event.values.size());
  }

  void see(Client& client, const TokenEvent& event) {
    EXPECT_FALSE(client.is_done()) << "a token after the end of " << event.id.value();
    client.tokens.push_back(event.token_id);
  }

  void see(Client& client, const FinishEvent& event) {
    EXPECT_FALSE(client.is_done()) << "two ends of " << event.id.value();
    client.finish = event;
    std::vector<int32_t> expected = expected_tokens(client.request);
    if (event.reason == FinishReason::abort) {
      ASSERT_LE(client.tokens.size(), expected.size());
      expected.resize(client.tokens.size());
    } else {
      const std::vector<int32_t>& stops = client.request.sampling.stop_token_ids;
      const bool stopped = std::ranges::find(stops, expected.back()) != stops.end();
      EXPECT_EQ(event.reason, stopped ? FinishReason::stop : FinishReason::length);
      EXPECT_EQ(event.stop_token_id, stopped ? expected.back() : -1);
      if (client.request.sampling.prompt_logprobs) {
        EXPECT_EQ(client.num_prompt_logprobs, static_cast<int32_t>(client.request.prompt.size()) - 1);
      }
    }
    EXPECT_EQ(client.tokens, expected) << "request " << event.id.value();
  }

  void see(Client& client, const FailEvent& event) {
    EXPECT_FALSE(client.is_done()) << "two ends of " << event.id.value();
    EXPECT_FALSE(event.error.message.empty());
    client.failure = event;
    std::vector<int32_t> expected = expected_tokens(client.request);
    ASSERT_LE(client.tokens.size(), expected.size());
    expected.resize(client.tokens.size());
    EXPECT_EQ(client.tokens, expected) << "request " << event.id.value();
  }

  // Preempted, though others run on: all of those were admitted before it, or the oldest would not always get on.
  void expect_youngest(SequenceId preempted) {
    for (const auto& [id, table] : tables_) EXPECT_LT(first_starts_.at(id), first_starts_.at(preempted));
  }

  uint64_t epoch_ = 1;
  bool keeps_memory_ = false;
  std::map<SequenceId, size_t> first_starts_;       // by order of first admission
  std::map<SequenceId, std::set<BlockId>> tables_;  // as the plans made so far say
};

}  // namespace lorikeet::engine::testing
