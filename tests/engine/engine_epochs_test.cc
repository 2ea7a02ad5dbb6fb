// What the engine does when ranks come and go.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include "tests/engine/engine_steps.h"

namespace lorikeet::engine {
namespace {

TEST(Engine, FailsEverythingWhenTheRanksAreLost) {
  EngineHarness server(small_config());
  const SequenceId running = server.add({1, 2, 3, 4, 5}, 9, "a");
  server.grant_leases();
  server.plan();
  const SequenceId waiting = server.add({1, 2}, 9, "b");
  server.lose_ranks();
  EXPECT_FALSE(server.engine.available());
  for (const SequenceId id : {running, waiting}) {
    ASSERT_TRUE(server.clients[id].failure);
    EXPECT_EQ(server.clients[id].failure->error, (RequestError{ErrorCode::rank_lost, "rank 1 died"}));
  }
  EXPECT_EQ(server.adapters.num_leases(), 0u);
  EXPECT_EQ(server.engine.stats().blocks_free, 20);
  EXPECT_EQ(server.engine.stats().plans_in_flight, 0);
  Request refused;
  refused.id = SequenceId(77);
  refused.prompt = {1};
  EXPECT_EQ(server.engine.add(refused).error().code, ErrorCode::rank_lost);
  EXPECT_FALSE(server.plan());
  EXPECT_TRUE(server.grant_next()) << "asked for before, answered now, given back at once";
  server.expect_nothing_left();
}

TEST(Engine, BeginsAnEpochFromNothing) {
  EngineHarness server(small_config());
  server.add(count_to(9), 9);
  server.step();
  server.lose_ranks();
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
