// Random histories: whatever happens in whatever order, no block leaks or is shared wrongly, every adapter in use is
// resident, every lease is released once, every request ends once, with the tokens that it would have got alone.
#include <gtest/gtest.h>

#include <random>

#include "tests/engine/engine_harness.h"

namespace lorikeet::engine {
namespace {

using testing::Client;
using testing::EngineHarness;

class RandomHistory {
 public:
  explicit RandomHistory(uint64_t seed)
      : random_(seed), num_slots_(draw(1, 4)), harness_(random_config(), num_slots_) {}

  void run(int num_events) {
    for (int i = 0; i < num_events && !::testing::Test::HasFailure(); ++i) happen();
    if (!harness_.engine.available()) harness_.start_epoch();
    harness_.run();
  }

  EngineStats stats() const { return harness_.engine.stats(); }
  const EngineHarness& harness() const { return harness_; }

 private:
  // The same with every standard library, unlike its distributions.
  int32_t draw(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }

  EngineConfig random_config() {
    EngineConfig config;
    config.block_size = draw(1, 6);
    config.num_blocks = draw(4, 40);
    config.max_model_len = draw(8, 120);
    config.max_num_seqs = draw(1, 10);
    config.max_num_batched_tokens = draw(1, 40);
    config.max_num_queued_requests = draw(1, 60);
    config.max_plans_in_flight = draw(1, 3);
    config.enable_prefix_caching = draw(0, 3) > 0;
    config.turn_tokens = draw(1, 6);
    return config;
  }

  // Prompts with much in common: each differs from one long text from some position on.
  std::vector<int32_t> random_prompt() {
    std::vector<int32_t> prompt(static_cast<size_t>(draw(1, 40)));
    const int32_t fork = draw(0, 40), branch = draw(0, 2);
    for (size_t i = 0; i < prompt.size(); ++i) {
      const auto position = static_cast<int32_t>(i);
      prompt[i] = position * 7 % 11 + (position >= fork ? branch : 0);
    }
    return prompt;
  }

  void arrive() {
    Request request;
    request.id = SequenceId(++num_requests_);
    request.prompt = random_prompt();
    request.adapter = draw(0, 2) == 0 ? "" : "digest-" + std::to_string(draw(0, 6));
    request.cache_salt = draw(0, 5) == 0 ? 1 : 0;
    request.sampling.max_tokens = draw(0, 30);
    request.sampling.prompt_logprobs = draw(0, 9) == 0;
    for (int32_t i = draw(0, 3); i > 0; --i) request.sampling.stop_token_ids.push_back(draw(0, 49));
    if (draw(0, 14) == 0) harness_.rank.diverging[request.id] = draw(1, 60);
    harness_.add(std::move(request));
  }

  void cancel() {
    const SequenceId id(static_cast<uint64_t>(draw(1, static_cast<int32_t>(num_requests_) + 3)));
    const auto client = harness_.clients.find(id);
    const bool was_live = client != harness_.clients.end() && !client->second.is_done();
    harness_.cancel(id);
    if (was_live) {
      EXPECT_TRUE(client->second.is_done());
    }
  }

  void give_way(bool wanted) { harness_.engine.give_way("digest-" + std::to_string(draw(0, 6)), wanted); }

  void happen() {
    if (draw(0, 9) == 0) give_way(draw(0, 2) > 0);
    switch (draw(0, 19)) {
      case 0:
      case 1:
      case 2:
        arrive();
        break;
      case 3:
        cancel();
        break;
      case 4:
        harness_.grant_next();
        break;
      case 5:
      case 6:
        harness_.grant_leases();
        break;
      case 7:
        harness_.evict_idle_adapters();
        break;
      case 8:
        if (draw(0, 4) == 0) harness_.fail_next_lease();
        break;
      case 9:
        if (draw(0, calm_) == 0 && harness_.engine.available()) lose();
        break;
      case 10:
        if (!harness_.engine.available()) start_epoch();
        break;
      case 11:
      case 12:
        expect_progress();
        break;
      case 13:
      case 14:
      case 15:
        harness_.plan();
        break;
      default:
        harness_.absorb();
        break;
    }
  }

  void lose() {
    switch (draw(0, 4)) {
      case 0:
        return harness_.lose_ranks();
      case 1:
      case 2:
        return harness_.fault();
      default:
        return harness_.stop_ranks();
    }
  }

  // With nothing in flight, a request that has all it asked for gets on.
  void expect_progress() {
    for (int i = 0; i <= 6; ++i) harness_.engine.give_way("digest-" + std::to_string(i), false);
    while (harness_.absorb()) {
    }
    bool someone_can = false;
    for (const auto& [id, client] : harness_.clients) {
      const bool has_adapter = client.request.adapter.empty() || harness_.adapters.has_lease(id);
      someone_can |= !client.is_done() && has_adapter;
    }
    const bool all_may = harness_.engine.stats().set_aside == 0;
    const bool planned = harness_.plan();
    if (planned || all_may) EXPECT_EQ(planned, harness_.engine.available() && someone_can);
  }

  void start_epoch() {
    if (draw(0, 2) > 0) return harness_.start_epoch();
    harness_.start_epoch(draw(4, 40));
  }

  std::mt19937_64 random_;
  const int calm_ = draw(0, 7) == 0 ? 0 : 9;  // how seldom the ranks are lost
  const int32_t num_slots_;
  uint64_t num_requests_ = 0;
  EngineHarness harness_;
};

TEST(EngineProperties, HoldInRandomHistories) {
  uint64_t preemptions = 0, hits = 0, generated = 0, resumptions = 0, recomputed = 0;
  std::map<ErrorCode, int> failures;
  int32_t max_adapters = 0, max_in_flight = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    RandomHistory history(seed);
    history.run(600);
    ASSERT_FALSE(HasFailure());
    const EngineStats stats = history.stats();
    preemptions += stats.preemptions;
    hits += stats.prefix_hit_tokens;
    generated += stats.generated_tokens;
    resumptions += stats.resumptions;
    recomputed += stats.recomputed_tokens;
    for (const auto& [id, client] : history.harness().clients) {
      if (client.failure) ++failures[client.failure->error.code];
    }
    max_adapters = std::max(max_adapters, stats.max_adapters_in_a_plan);
    max_in_flight = std::max(max_in_flight, stats.max_plans_in_flight_seen);
  }
  // The histories reach what they are meant to try.
  EXPECT_GT(preemptions, 1000u);
  EXPECT_GT(hits, 10000u);
  EXPECT_GT(generated, 10000u);
  EXPECT_GT(resumptions, 500u);
  EXPECT_GT(recomputed, 500u);
  EXPECT_GT(failures[ErrorCode::no_token], 100);
  EXPECT_GT(failures[ErrorCode::adapter_failed], 10);
  EXPECT_GT(failures[ErrorCode::poison], 0);
  EXPECT_GE(max_adapters, 3);
  EXPECT_EQ(max_in_flight, 3);
}

}  // namespace
}  // namespace lorikeet::engine
