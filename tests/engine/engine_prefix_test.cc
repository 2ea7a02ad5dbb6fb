// Tables of steps: what sequences share of their prompts.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include "tests/engine/engine_steps.h"

namespace lorikeet::engine {
namespace {

TEST(Engine, StartsBehindACachedPrefix) {
  EngineHarness server(small_config());
  server.add(count_to(10), 1);
  server.run();
  std::vector<int32_t> prompt = count_to(9);
  prompt.push_back(77);
  const SequenceId second = server.add(prompt, 1);
  expect_steps(server, {{"-1 +2 2[8,10)*", 0, 1, 0, 17}});
  EXPECT_EQ(server.clients[second].finish->num_cached_tokens, 8);
  EXPECT_EQ(server.engine.stats().prefix_hit_tokens, 8u);
  EXPECT_EQ(server.engine.stats().prompt_tokens, 20u);
}

TEST(Engine, SharesNothingOfBeforeAResetWhetherItRunsOrHasEnded) {
  EngineHarness server(small_config());
  server.add(count_to(10), 1);
  server.run();
  server.add(count_to(9), 30);
  server.step();
  server.engine.reset_prefix_cache();
  const SequenceId third = server.add(count_to(10), 1);
  server.run();
  EXPECT_EQ(server.clients[third].finish->num_cached_tokens, 0);
  const SequenceId fourth = server.add(count_to(10), 1);
  server.run();
  EXPECT_EQ(server.clients[fourth].finish->num_cached_tokens, 8) << "what was computed after it is shared";
}

TEST(Engine, SharesAPrefixThatIsStillBeingComputedByAnEarlierPlan) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  server.add(count_to(9), 5);
  ASSERT_TRUE(server.plan());
  server.add(count_to(9), 5);
  ASSERT_TRUE(server.plan());
  EXPECT_EQ(describe(server.in_flight.back()), "+2 1[9,10)* 2[8,9)*");
  EXPECT_EQ(server.in_flight.back().blocks[0].id, SequenceId(2));
  EXPECT_EQ(server.in_flight.back().blocks[0].blocks.size(), 3u) << "two shared, one its own, in one append";
  server.run();
}

TEST(Engine, SharesAPromptThatIsNotYetComputedToItsEnd) {
  EngineConfig config = small_config();
  config.max_num_batched_tokens = 8;
  EngineHarness server(config);
  server.add(count_to(30), 1);
  expect_steps(server, {{"+1 1[0,8)", 0, 1, 0, 12}});
  server.add(count_to(9), 1);
  expect_steps(server, {{"1[8,16)", 1, 1, 0, 12},
                        {"1[16,24)", 1, 1, 0, 12},
                        {"+2 1[24,30)* 2[8,9)*", 0, 2, 0, 11}});  // of the first's eight blocks, two
  server.run();
}

TEST(Engine, SharesNothingWithinAPlan) {
  EngineConfig config = small_config();
  config.max_num_batched_tokens = 40;
  EngineHarness server(config);
  server.add(count_to(9), 2);
  server.add(count_to(9), 2);
  expect_steps(server, {{"+1 +2 1[0,9)* 2[0,9)*", 0, 2, 0, 14}});
  server.run();
}

TEST(Engine, AlwaysComputesTheLastPromptToken) {
  EngineHarness server(small_config());
  server.add(count_to(8), 1);
  server.run();
  server.add(count_to(8), 1);
  expect_steps(server, {{"-1 +2 2[4,8)*", 0, 1, 0, 18}});
}

TEST(Engine, SharesNothingAcrossAdaptersOrSalts) {
  EngineHarness server(small_config());
  server.add(count_to(9), 1, "a");
  server.run();
  const SequenceId base = server.add(count_to(9), 1);
  const SequenceId other = server.add(count_to(9), 1, "b");
  const SequenceId same = server.add(count_to(9), 1, "a");
  Request salted;
  salted.id = SequenceId(50);
  salted.prompt = count_to(9);
  salted.adapter = "a";
  salted.cache_salt = 3;
  ASSERT_TRUE(server.add(salted));
  server.run();
  for (const SequenceId id : {base, other, salted.id}) EXPECT_EQ(server.clients[id].finish->num_cached_tokens, 0);
  EXPECT_EQ(server.clients[same].finish->num_cached_tokens, 8);
}

TEST(Engine, ReusesThePrefixOfAnAnswerInTheNextTurn) {
  EngineHarness server(small_config());
  const SequenceId first = server.add(count_to(6), 8);
  server.run();
  std::vector<int32_t> conversation = count_to(6);
  const std::vector<int32_t>& answer = server.clients[first].tokens;
  conversation.insert(conversation.end(), answer.begin(), answer.end());
  conversation.push_back(3);
  const SequenceId second = server.add(conversation, 1);
  server.run();
  EXPECT_EQ(server.clients[second].finish->num_cached_tokens, 12) << "13 positions were computed";
}

TEST(Engine, ReportsPromptLogprobsOnceAndTakesNoHitsForThem) {
  EngineConfig config = small_config();
  config.num_blocks = 8;
  config.max_num_batched_tokens = 5;
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  server.add(count_to(4), 20);
  Request request;
  request.id = SequenceId(9);
  request.prompt = count_to(14);
  request.sampling.max_tokens = 12;
  request.sampling.prompt_logprobs = true;
  ASSERT_TRUE(server.add(request));
  server.run();
  EXPECT_EQ(server.clients[request.id].num_prompt_logprobs, 13);
  EXPECT_EQ(server.clients[request.id].finish->num_cached_tokens, 0);
  ASSERT_GT(server.engine.stats().preemptions, 0u);
  EXPECT_EQ(server.starts.front().id, SequenceId(1));
  EXPECT_TRUE(server.starts[1].sampling.prompt_logprobs);
  EXPECT_EQ(server.starts.back().id, request.id);
  EXPECT_FALSE(server.starts.back().sampling.prompt_logprobs) << "all had been reported before it was preempted";
}

}  // namespace
}  // namespace lorikeet::engine
