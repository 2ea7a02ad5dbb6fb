// What the engine does when ranks come and go.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include "tests/engine/engine_steps.h"

namespace lorikeet::engine {
namespace {

TEST(Engine, TakesEverythingBackWhenTheRanksAreLost) {
  EngineHarness server(small_config());
  const SequenceId running = server.add({1, 2, 3, 4, 5}, 9, "a");
  server.grant_leases();
  server.plan();
  server.add({1, 2}, 9, "b");  // has asked, and has no answer
  server.lose_ranks();
  EXPECT_FALSE(server.engine.available());
  EXPECT_FALSE(server.clients[running].is_done());
  EXPECT_EQ(server.adapters.num_leases(), 0u);
  EXPECT_EQ(server.adapters.num_asked(), 0u);
  const EngineStats stats = server.engine.stats();
  EXPECT_EQ(stats.blocks_free, 20);
  EXPECT_EQ(stats.plans_in_flight, 0);
  EXPECT_EQ(stats.preempted, 1);
  EXPECT_EQ(stats.waiting, 1);
  EXPECT_EQ(stats.resumptions, 1u);
  EXPECT_EQ(stats.preemptions, 0u);
  Request refused;
  refused.id = SequenceId(77);
  refused.prompt = {1};
  EXPECT_EQ(server.engine.add(refused).error().code, ErrorCode::rank_lost);
  EXPECT_FALSE(server.plan());
}

TEST(Engine, GoesOnInTheNextEpochWithThePromptAndTheTokensEmitted) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  const SequenceId id = server.add({1, 2, 3, 4, 5}, 9, "a");
  for (int i = 0; i < 3; ++i) server.step();
  ASSERT_EQ(server.clients[id].tokens.size(), 3u);
  ASSERT_TRUE(server.plan());
  server.lose_ranks();
  server.starts.clear();
  server.start_epoch();
  EXPECT_EQ(server.adapters.num_asked(), 1u) << "the slots are new ones";
  server.grant_leases();
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+1 1[0,8)*");
  ASSERT_EQ(server.starts.size(), 1u);
  EXPECT_EQ(server.starts[0].token_ids.size(), 8u);
  EXPECT_EQ(server.starts[0].prompt_size, 5);
  server.run();
  EXPECT_EQ(server.clients[id].finish->reason, FinishReason::length);
}

TEST(Engine, GoesOnAtTheFirstPositionThatWasNotAbsorbedWhereTheMemoryIsStillThere) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  const SequenceId id = server.add({1, 2, 3, 4, 5}, 9, "a");
  for (int i = 0; i < 3; ++i) server.step();
  ASSERT_TRUE(server.plan());
  ASSERT_EQ(server.in_flight.size(), 2u);
  server.stop_ranks();
  EXPECT_EQ(server.engine.stats().kept, 1);
  EXPECT_EQ(server.engine.stats().blocks_free, 18) << "of its 8 tokens, and none of what was ordered behind them";
  server.starts.clear();
  server.start_epoch();
  EXPECT_FALSE(server.plan()) << "the slots are new ones";
  server.grant_leases();
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+1 1[7,8)*");
  EXPECT_EQ(server.starts[0].token_ids.size(), 8u);
  EXPECT_EQ(server.in_flight.back().blocks[0].blocks.size(), 2u) << "the ranks are told of all of them";
  server.run();
  EXPECT_EQ(server.engine.stats().recomputed_tokens, 0u);
}

TEST(Engine, GoesOnInTheMiddleOfAPrompt) {
  EngineHarness server(small_config());
  Request request;
  request.id = SequenceId(1);
  request.prompt = count_to(40);
  request.sampling.max_tokens = 3;
  request.sampling.prompt_logprobs = true;
  ASSERT_TRUE(server.add(request));
  ASSERT_TRUE(server.step());  // [0, 16)
  ASSERT_TRUE(server.plan());  // [16, 32)
  server.stop_ranks();
  server.start_epoch();
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+1 1[16,32)");
  server.run();
  EXPECT_EQ(server.engine.stats().recomputed_tokens, 0u);
}

TEST(Engine, TakesBackWhatPlansInFlightHavePublishedAndWhoBelievedIt) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  const SequenceId early = server.add(count_to(8), 1);
  server.run();
  ASSERT_TRUE(server.clients[early].finish);
  server.add(count_to(14), 5);  // shares 8 positions that are there, and publishes 4 more
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "-1 +2 2[8,14)*");
  server.add(count_to(13), 5);  // shares all 12 of them
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+3 2[14,15)* 3[12,13)*");
  server.stop_ranks();
  server.start_epoch();
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+2 +3 2[8,14)* 3[8,13)*");
  const SequenceId late = server.add(count_to(13), 5);
  server.run();
  EXPECT_EQ(server.clients[late].finish->num_cached_tokens, 12) << "what is computed then is shared again";
}

TEST(Engine, LetsWhatIsKeptForTheYoungestGiveWayWhereBlocksAreShort) {
  EngineConfig config = small_config();
  config.num_blocks = 5;
  EngineHarness server(config);
  const SequenceId old = server.add(count_to(7), 9, "a"), young = server.add(count_to(7), 9, "b");
  server.grant_leases();
  server.step();
  EXPECT_EQ(server.engine.stats().running, 2);
  server.stop_ranks();
  EXPECT_EQ(server.engine.stats().kept, 2);
  EXPECT_EQ(server.engine.stats().blocks_free, 1);
  server.start_epoch();
  server.grant_next();  // of the old one alone
  while (server.engine.stats().kept > 0) ASSERT_TRUE(server.plan() && server.absorb());
  EXPECT_EQ(server.engine.stats().preemptions, 0u) << "nothing that runs had to give way";
  EXPECT_GT(server.clients[old].tokens.size(), 1u);
  server.run();
  EXPECT_TRUE(server.clients[young].finish);
}

TEST(Engine, LeavesNothingOfOneThatEndsWhileItIsKept) {
  EngineHarness server(small_config());
  const SequenceId id = server.add(count_to(7), 9);
  server.step();
  server.stop_ranks();
  EXPECT_EQ(server.engine.stats().kept, 1);
  server.cancel(id);
  EXPECT_EQ(server.engine.stats().kept, 0);
  server.expect_nothing_left();
}

TEST(Engine, KeepsTheOrderOfAdmissionOverALoss) {
  EngineConfig config = small_config();
  config.max_num_batched_tokens = 32;
  EngineHarness server(config);
  for (int i = 0; i < 3; ++i) server.add(count_to(5 + i), 9);
  server.step();
  server.add(count_to(4), 9);
  server.lose_ranks();
  server.start_epoch();
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+1 +2 +3 +4 1[0,6)* 2[0,7)* 3[0,8)* 4[0,4)*");
  server.run();
}

TEST(Engine, EndsARequestThatIsCancelledWhileThereAreNoRanks) {
  EngineHarness server(small_config());
  const SequenceId running = server.add({1, 2, 3}, 9, "a");
  server.grant_leases();
  server.plan();
  const SequenceId waiting = server.add({1, 2}, 9, "b");
  server.lose_ranks();
  server.cancel(running);
  server.cancel(waiting);
  server.expect_nothing_left();
  server.start_epoch();
  EXPECT_FALSE(server.plan());
  EXPECT_EQ(server.adapters.num_asked(), 0u);
}

TEST(Engine, ForgetsARowInFlightOfARequestThatHadEnded) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 9, "a");
  server.grant_leases();
  server.plan();
  server.cancel(id);
  EXPECT_EQ(server.adapters.num_leases(), 1u);
  server.lose_ranks();
  server.expect_nothing_left();
}

TEST(Engine, GivesARequestUpThatLosesTheRanksAgainAndAgain) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 9);
  for (int i = 0; i < 2; ++i) server.step();
  for (int i = 0; i < Engine::kMaxBlamedLosses + 1; ++i) {
    ASSERT_FALSE(server.clients[id].is_done());
    ASSERT_TRUE(server.plan());
    server.fault();
    server.start_epoch();
  }
  ASSERT_TRUE(server.clients[id].failure);
  EXPECT_EQ(server.clients[id].failure->error,
            (RequestError{ErrorCode::poison,
                          "4 losses of the ranks found the request being computed, the last one found it alone: rank 1 "
                          "died"}));
  server.expect_nothing_left();
}

// Of three requests that are always there when the ranks fail, one is the reason.
TEST(Engine, TriesEachRequestThatMayBeTheReasonAloneWhenTheOthersHaveEnded) {
  EngineHarness server(small_config());
  const SequenceId first = server.add({1, 2, 3}, 9), poison = server.add({4, 5}, 9, "a"), last = server.add({6}, 9);
  for (int i = 0; i < Engine::kMaxBlamedLosses; ++i) {
    server.grant_leases();
    ASSERT_TRUE(server.plan());
    EXPECT_EQ(server.engine.stats().running, 3);
    server.fault();
    server.start_epoch();
  }
  EXPECT_EQ(server.engine.stats().set_aside, 3);
  const SequenceId innocent = server.add({7, 8}, 3);  // it was not there: it does not have to wait
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+1 1[0,3)*") << "alone; who has come meanwhile waits";
  server.absorb();
  while (!server.clients[first].is_done()) ASSERT_TRUE(server.step());
  EXPECT_TRUE(server.clients[first].finish);
  while (server.in_flight.empty() || describe(server.in_flight.back()).find(" 2[") == std::string::npos) {
    while (server.absorb()) {
    }
    server.grant_leases();
    ASSERT_TRUE(server.plan());
  }
  EXPECT_EQ(server.engine.stats().running, 1) << "the next one is alone, too";
  server.fault();
  EXPECT_EQ(server.clients[poison].failure->error.code, ErrorCode::poison);
  server.start_epoch();
  server.run();
  EXPECT_TRUE(server.clients[last].finish) << "the ranks never failed at it alone";
  EXPECT_TRUE(server.clients[innocent].finish);
}

TEST(Engine, LetsOthersGoOnWhileOneThatIsSetAsideWaitsForItsAdapter) {
  EngineHarness server(small_config());
  const SequenceId suspect = server.add({4, 5}, 9, "a");
  for (int i = 0; i < Engine::kMaxBlamedLosses; ++i) {
    server.grant_leases();
    ASSERT_TRUE(server.plan());
    server.fault();
    server.start_epoch();
  }
  server.plan();
  EXPECT_EQ(server.adapters.num_asked(), 1u);
  const SequenceId other = server.add({1, 2}, 2);
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+2 2[0,2)*");
  server.run();
  EXPECT_TRUE(server.clients[suspect].finish);
  EXPECT_TRUE(server.clients[other].finish);
}

TEST(Engine, BlamesNobodyForRanksThatWereKilled) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 9);
  for (int i = 0; i < 4 * Engine::kMaxBlamedLosses; ++i) {
    ASSERT_TRUE(server.plan());
    server.lose_ranks();
    server.start_epoch();
  }
  EXPECT_EQ(server.engine.stats().set_aside, 0);
  server.run();
  EXPECT_TRUE(server.clients[id].finish);
}

TEST(Engine, TriesOneAgainWhoseTrialSomebodyElseHasEnded) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 9);
  for (int i = 0; i < Engine::kMaxBlamedLosses; ++i) {
    ASSERT_TRUE(server.plan());
    server.fault();
    server.start_epoch();
  }
  ASSERT_TRUE(server.plan());
  server.lose_ranks();
  EXPECT_EQ(server.engine.stats().set_aside, 1);
  server.start_epoch();
  server.run();
  EXPECT_TRUE(server.clients[id].finish);
}

TEST(Engine, EndsOneThatIsSetAsideWhenItIsCancelled) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 9, "a");
  for (int i = 0; i < Engine::kMaxBlamedLosses; ++i) {
    server.grant_leases();
    ASSERT_TRUE(server.plan());
    server.fault();
    if (i + 1 < Engine::kMaxBlamedLosses) server.start_epoch();
  }
  EXPECT_EQ(server.engine.stats().set_aside, 1);
  server.cancel(id);
  server.start_epoch();
  server.expect_nothing_left();
  EXPECT_FALSE(server.plan());
}

TEST(Engine, KeepsARequestThatGetsTokensBetweenLosses) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 20);
  for (int i = 0; i < 3 * Engine::kMaxBlamedLosses; ++i) {
    server.step();
    ASSERT_TRUE(server.plan());
    server.lose_ranks();
    server.start_epoch();
  }
  server.run();
  EXPECT_TRUE(server.clients[id].finish);
}

TEST(Engine, CountsNoLossThatFindsARequestWaiting) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1, 2, 3}, 20, "a");
  for (int i = 0; i < 2 * Engine::kMaxBlamedLosses; ++i) {
    server.lose_ranks();
    server.start_epoch();
  }
  server.run();
  EXPECT_TRUE(server.clients[id].finish);
}

TEST(Engine, FailsWhatDoesNotFitTheBlocksOfANewEpoch) {
  EngineHarness server(small_config());
  const SequenceId large = server.add(count_to(9), 30);
  const SequenceId small = server.add(count_to(9), 4);
  server.step();
  server.lose_ranks();
  server.start_epoch(3);
  ASSERT_TRUE(server.clients[large].failure);
  EXPECT_EQ(server.clients[large].failure->error.code, ErrorCode::too_long);
  EXPECT_EQ(server.engine.stats().blocks_total, 3);
  server.run();
  EXPECT_TRUE(server.clients[small].finish);
}

TEST(Engine, SharesPrefixesInAPoolOfAnotherSize) {
  EngineHarness server(small_config());
  server.lose_ranks();
  server.start_epoch(40);
  EXPECT_EQ(server.engine.stats().blocks_free, 40);
  server.add(count_to(9), 2);
  server.run();
  server.add(count_to(9), 2);
  server.run();
  EXPECT_EQ(server.engine.stats().prefix_hit_tokens, 8u);
}

TEST(Engine, BeginsAnEpochFromNothing) {
  EngineHarness server(small_config());
  const SequenceId before = server.add(count_to(9), 9);
  server.step();
  server.lose_ranks();
  server.cancel(before);
  server.start_epoch();
  EXPECT_TRUE(server.engine.available());
  const SequenceId id = server.add(count_to(9), 1);
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+2 2[0,9)*") << "no hits in memory that is gone, nobody to drop";
  EXPECT_EQ(server.in_flight.back().step, StepId(1));
  EXPECT_EQ(server.in_flight.back().epoch, Epoch(2));
  server.run();
  EXPECT_TRUE(server.clients[id].finish);
}

TEST(Engine, IsNotAvailableBeforeItsFirstEpoch) {
  Engine engine{EngineConfig()};
  EXPECT_FALSE(engine.available());
  Request request;
  request.prompt = {1};
  EXPECT_EQ(engine.add(request).error().code, ErrorCode::rank_lost);
  EXPECT_FALSE(engine.plan());
}

}  // namespace
}  // namespace lorikeet::engine
