#include "engine/engine.h"

#include <gmock/gmock.h>

#include "tests/engine/fake_rank.h"

namespace lorikeet::engine {
namespace {

using testing::FakeRank;

TEST(Engine, AnswersARequest) {
  EngineConfig config;
  config.num_blocks = 8;
  Engine engine(config);
  engine.start_epoch(Epoch(1));
  FakeRank rank(config);
  Request request;
  request.id = SequenceId(7);
  request.prompt = {1, 2, 3};
  request.sampling.max_tokens = 4;
  ASSERT_TRUE(engine.add(request));
  std::vector<StepPlan> in_flight;
  int tokens = 0, finished = 0;
  for (int i = 0; i < 20; ++i) {
    while (auto plan = engine.plan()) in_flight.push_back(std::move(*plan));
    if (in_flight.empty()) break;
    engine.absorb(rank.execute(in_flight.front()));
    in_flight.erase(in_flight.begin());
    for (const Event& event : engine.take_events()) {
      tokens += std::holds_alternative<TokenEvent>(event);
      finished += std::holds_alternative<FinishEvent>(event);
    }
  }
  EXPECT_EQ(tokens, 4);
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(engine.stats().max_plans_in_flight_seen, 2);
  EXPECT_EQ(engine.stats().blocks_free, 8);
}

}  // namespace
}  // namespace lorikeet::engine
