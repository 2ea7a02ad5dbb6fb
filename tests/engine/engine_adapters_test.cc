// Leases of adapters, and how plans are shared between them.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include "tests/engine/engine_steps.h"

namespace lorikeet::engine {
namespace {

TEST(Engine, ReleasesALeaseWhenNoPlanInFlightNeedsIt) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  const SequenceId id = server.add({1, 2}, 9, "a");
  server.grant_leases();
  ASSERT_TRUE(server.plan());
  ASSERT_TRUE(server.plan());
  server.cancel(id);
  EXPECT_EQ(server.adapters.num_leases(), 1u);
  server.absorb();
  EXPECT_EQ(server.adapters.num_leases(), 1u);
  server.absorb();
  EXPECT_EQ(server.adapters.num_leases(), 0u);
}

TEST(Engine, ReleasesALeaseThatComesAfterTheEnd) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2}, 9, "a");
  server.cancel(id);
  EXPECT_TRUE(server.grant_next());
  EXPECT_EQ(server.adapters.num_leases(), 0u);
  const SequenceId other = server.add({1, 2}, 9, "a");
  server.cancel(other);
  server.fail_next_lease();
  server.expect_nothing_left();
}

TEST(Engine, ServesOthersWhileAnAdapterLoads) {
  EngineHarness server(small_config());
  server.add({1, 2}, 3, "a");
  server.add({3, 4}, 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(server.plan());
    server.absorb();
  }
  EXPECT_FALSE(server.plan());
  EXPECT_TRUE(server.clients[SequenceId(2)].finish);
  EXPECT_FALSE(server.clients[SequenceId(1)].is_done());
  server.run();
}

TEST(Engine, FailsARequestWhoseAdapterCannotBeServed) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2}, 9, "a");
  server.fail_next_lease();
  EXPECT_EQ(server.clients[id].failure->error.message, "the adapter's files are gone");
  server.expect_nothing_left();
}

TEST(Engine, PutsManyAdaptersIntoOnePlan) {
  EngineHarness server(small_config());
  for (const char* adapter : {"a", "b", "c", ""}) server.add({1, 2}, 3, adapter);
  server.run();
  EXPECT_EQ(server.engine.stats().max_adapters_in_a_plan, 3);
}

TEST(Engine, ServesAnotherAdapterInTheMiddleOfAFlood) {
  EngineConfig config = small_config();
  config.num_blocks = 400;
  EngineHarness server(config);
  for (int i = 0; i < 300; ++i) server.add(std::vector<int32_t>(30, i), 8, "flood");
  for (int i = 0; i < 40; ++i) server.step();
  const SequenceId other = server.add({1, 2, 3}, 2, "other");
  int steps = 0;
  while (!server.clients[other].finish) {
    ASSERT_TRUE(server.step());
    ++steps;
  }
  // It waits for one of the four that run to end, and for nobody in the queue.
  EXPECT_LT(steps, 25);
  EXPECT_GT(server.engine.stats().waiting, 200);
  EXPECT_FALSE(::testing::Test::HasFailure());
}

TEST(Engine, SharesThePromptBudgetBetweenAdaptersThatBothFlood) {
  EngineConfig config = small_config();
  config.num_blocks = 800;
  config.max_num_seqs = 8;
  EngineHarness server(config);
  for (int i = 0; i < 100; ++i) server.add(std::vector<int32_t>(60, i), 2, "long prompts");
  for (int i = 0; i < 400; ++i) server.add(std::vector<int32_t>(10, i), 2, "short prompts");
  std::map<std::string, int32_t> tokens_done;
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(server.step());
  for (const auto& [id, client] : server.clients) {
    if (client.finish) tokens_done[client.request.adapter] += static_cast<int32_t>(client.request.prompt.size()) + 1;
  }
  const double ratio = double(tokens_done["long prompts"]) / tokens_done["short prompts"];
  EXPECT_GT(ratio, 0.8);
  EXPECT_LT(ratio, 1.25);
}

TEST(Engine, PinsAnAdapterForFewOfItsWaitingRequests) {
  EngineHarness server(small_config(), 1);
  for (int i = 0; i < 100; ++i) server.add({1, 2}, 3, "flood");
  const SequenceId other = server.add({1, 2}, 3, "other");
  int steps = 0;
  while (!server.clients[other].finish) {
    ASSERT_TRUE(server.step());
    ++steps;
  }
  int32_t before = 0;
  for (const auto& [id, client] : server.clients) before += client.is_done();
  EXPECT_LT(before, 50) << "the one slot changes hands before the flood is over";
  server.run();
}

EngineConfig roomy_config() {
  EngineConfig config = small_config();
  config.num_blocks = 100;
  config.max_plans_in_flight = 2;
  return config;
}

TEST(Engine, GivesASlotUpAfterATurnAndGoesOnWhereItWas) {
  EngineHarness server(roomy_config(), 1);
  const SequenceId first = server.add({1, 2}, 100, "a");
  server.grant_leases();
  const SequenceId other = server.add({3, 4}, 20, "b");
  server.engine.give_way("a", true);
  while (!server.clients[other].finish) ASSERT_TRUE(server.step());
  const auto had = server.clients[first].tokens.size();
  EXPECT_GE(had, 32u);
  EXPECT_LT(had, 50u) << "the turn and up to a block's end";
  server.engine.give_way("a", false);
  server.run();
  const EngineStats stats = server.engine.stats();
  EXPECT_EQ(stats.turns, 1u);
  EXPECT_EQ(stats.preemptions, 0u);
  // 2 + 99 and 2 + 19 positions, and what was computed once more.
  EXPECT_LE(server.rank.num_positions_computed(), 101 + 21 + 4);
}

TEST(Engine, KeepsASlotThatNobodyWaitsForAnyMore) {
  EngineHarness server(roomy_config(), 1);
  server.add({1, 2}, 100, "a");
  server.engine.give_way("a", true);
  for (int i = 0; i < 20; ++i) server.step();
  server.engine.give_way("a", false);
  server.engine.give_way("nobody's", true);
  server.run();
  EXPECT_EQ(server.engine.stats().turns, 0u);
}

TEST(Engine, TakesTurnsOnlyWhereGoingOnIsCheap) {
  for (const bool has_room : {false, true}) {
    SCOPED_TRACE(has_room);
    EngineConfig config = roomy_config();
    if (has_room) {
      config.enable_prefix_caching = false;
    } else {
      config.num_blocks = 27;  // of which one sequence takes nearly all
    }
    EngineHarness server(config, 1);
    server.add(std::vector<int32_t>(16, 1), 90, "a");
    server.grant_leases();
    for (int i = 0; i < (has_room ? 1 : 70); ++i) server.step();
    server.engine.give_way("a", true);
    server.run();
    EXPECT_EQ(server.engine.stats().turns, 0u);
  }
}

TEST(Engine, LetsThoseThatHoldALeaseHaveTheirTurnBehindOneThatGaveItsBack) {
  EngineConfig config = roomy_config();
  config.max_num_seqs = 1;
  EngineHarness server(config, 1);
  std::vector<SequenceId> flood;
  for (int i = 0; i < 3; ++i) flood.push_back(server.add({1, i}, 60, "a"));
  server.grant_leases();  // all three hold one
  const SequenceId other = server.add({3, 4}, 5, "b");
  server.engine.give_way("a", true);
  while (!server.clients[other].finish) ASSERT_TRUE(server.step());
  for (const SequenceId id : flood) {
    EXPECT_GE(server.clients[id].tokens.size(), 32u);
    EXPECT_FALSE(server.clients[id].finish);
  }
  server.engine.give_way("a", false);
  server.run();
}

TEST(Engine, ForgetsTurnsWithTheRanks) {
  EngineHarness server(roomy_config(), 1);
  const SequenceId id = server.add({1, 2}, 100, "a");
  server.engine.give_way("a", true);
  while (server.engine.stats().turns == 0) ASSERT_TRUE(server.step());  // its rows may be in flight still
  server.lose_ranks();
  server.start_epoch();
  server.run();
  EXPECT_EQ(server.engine.stats().turns, 1u);
  EXPECT_TRUE(server.clients[id].finish);
}

}  // namespace
}  // namespace lorikeet::engine
