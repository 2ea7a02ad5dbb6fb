// Tables of steps: what is done, the plan that follows, and how the engine then stands.
#include "engine/engine.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <numeric>

#include "tests/engine/engine_harness.h"

namespace lorikeet::engine {
namespace {

using testing::Client;
using ::testing::ElementsAre;
using testing::EngineHarness;
using ::testing::HasSubstr;

// "-2 +3 1[4,5)* 3[0,4)": drop 2, start 3, compute position 4 of sequence 1 and draw a token, compute 0 to 3 of 3.
std::string describe(const StepPlan& plan) {
  std::string text;
  for (const SequenceId id : plan.finished) text += fmt::format("-{} ", id.value());
  for (const SequenceStart& start : plan.starts) text += fmt::format("+{} ", start.id.value());
  for (const StepRow& row : plan.rows) {
    text += fmt::format("{}[{},{}){} ", row.id.value(), row.start, row.start + row.count, row.sample ? "*" : "");
  }
  text.pop_back();
  return text;
}

std::vector<int32_t> count_to(int32_t end) {
  std::vector<int32_t> tokens(static_cast<size_t>(end));
  std::iota(tokens.begin(), tokens.end(), 1);
  return tokens;
}

EngineConfig small_config() {
  EngineConfig config;
  config.block_size = 4;
  config.num_blocks = 20;
  config.max_num_seqs = 4;
  config.max_num_batched_tokens = 16;
  config.max_model_len = 200;
  config.max_plans_in_flight = 1;
  return config;
}

struct Step {
  std::string plan;                                                  // empty: none
  int32_t waiting = 0, running = 0, preempted = 0, blocks_free = 0;  // with the plan in flight
};

// Makes a plan, looks, and absorbs the oldest result; step after step.
void expect_steps(EngineHarness& server, const std::vector<Step>& steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(fmt::format("step {}", i + 1));
    server.grant_leases();
    const bool planned = server.plan();
    EXPECT_EQ(planned ? describe(server.in_flight.back()) : "", steps[i].plan);
    const EngineStats stats = server.engine.stats();
    EXPECT_EQ(stats.waiting, steps[i].waiting);
    EXPECT_EQ(stats.running, steps[i].running);
    EXPECT_EQ(stats.preempted, steps[i].preempted);
    EXPECT_EQ(stats.blocks_free, steps[i].blocks_free);
    if (static_cast<int32_t>(server.in_flight.size()) == server.config.max_plans_in_flight || !planned) server.absorb();
  }
}

TEST(Engine, BatchesContinuously) {
  EngineHarness server(small_config());
  server.add({1, 2, 3}, 3);
  expect_steps(server, {{"+1 1[0,3)*", 0, 1, 0, 19}});
  server.add({5, 6, 7, 8, 9}, 2);
  expect_steps(server, {{"+2 1[3,4)* 2[0,5)*", 0, 2, 0, 17}, {"1[4,5)* 2[5,6)*", 0, 2, 0, 16}, {"", 0, 0, 0, 20}});
  server.expect_nothing_left();
}

TEST(Engine, KeepsTwoPlansInFlight) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  server.add({1, 2, 3}, 4);
  expect_steps(server, {{"+1 1[0,3)*", 0, 1, 0, 19},
                        {"1[3,4)*", 0, 1, 0, 19},  // its token is not known here yet
                        {"1[4,5)*", 0, 1, 0, 18},
                        {"1[5,6)*", 0, 1, 0, 18},
                        {"", 0, 1, 0, 18},  // the last token is ordered; nothing is computed in vain
                        {"", 0, 0, 0, 20}});
  server.expect_nothing_left();
  EXPECT_EQ(server.engine.stats().max_plans_in_flight_seen, 2);
}

TEST(Engine, PlansNoFurtherThanItMay) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 3;
  EngineHarness server(config);
  server.add({1}, 50);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(server.plan());
  EXPECT_FALSE(server.plan());
  server.absorb();
  EXPECT_TRUE(server.plan());
  server.run();
}

TEST(Engine, CutsLongPromptsIntoChunksBesideDecoding) {
  EngineConfig config = small_config();
  config.max_num_batched_tokens = 6;
  EngineHarness server(config);
  server.add({1, 2}, 9);
  expect_steps(server, {{"+1 1[0,2)*", 0, 1, 0, 19}});
  server.add(count_to(13), 2);
  expect_steps(server, {{"+2 1[2,3)* 2[0,5)", 0, 2, 0, 15},
                        {"1[3,4)* 2[5,10)", 0, 2, 0, 15},
                        {"1[4,5)* 2[10,13)*", 0, 2, 0, 14},
                        {"1[5,6)* 2[13,14)*", 0, 2, 0, 14},
                        {"-2 1[6,7)*", 0, 1, 0, 18}});
  server.run();
}

TEST(Engine, RecomputesAPreemptedSequenceFromItsTokens) {
  EngineConfig config = small_config();
  config.num_blocks = 5;
  config.enable_prefix_caching = false;
  EngineHarness server(config);
  server.add(count_to(6), 8);
  server.add({9, 8, 7, 6, 5}, 6);
  expect_steps(server, {{"+1 +2 1[0,6)* 2[0,5)*", 0, 2, 0, 1},
                        {"1[6,7)* 2[5,6)*", 0, 2, 0, 1},
                        {"1[7,8)* 2[6,7)*", 0, 2, 0, 1},
                        {"1[8,9)* 2[7,8)*", 0, 2, 0, 0},
                        {"-2 1[9,10)*", 0, 1, 1, 2},  // 2 wanted a third block, and was the youngest
                        {"1[10,11)*", 0, 1, 1, 2},    // it needs three, and one must be left for 1
                        {"1[11,12)*", 0, 1, 1, 2},
                        {"1[12,13)*", 0, 1, 1, 1}});
  server.grant_leases();
  ASSERT_TRUE(server.plan());
  const StepPlan& plan = server.in_flight.back();
  EXPECT_EQ(describe(plan), "-1 +2 2[0,9)*");
  EXPECT_THAT(plan.starts[0].token_ids,
              ElementsAre(9, 8, 7, 6, 5, ::testing::_, ::testing::_, ::testing::_, ::testing::_));
  EXPECT_EQ(plan.starts[0].prompt_size, 5);
  server.run();
  EXPECT_EQ(server.engine.stats().preemptions, 1u);
}

TEST(Engine, GivesAResumedSequenceItsOldAge) {
  EngineConfig config = small_config();
  config.num_blocks = 6;
  config.enable_prefix_caching = false;
  EngineHarness server(config);
  server.add(count_to(6), 11);
  server.add({9, 8, 7, 6, 5}, 20);
  while (server.engine.stats().preempted == 0) server.step();
  server.add({7, 7, 7}, 14, "a");  // is admitted while the second waits, and so is younger than it
  server.run();
  std::vector<uint64_t> started;
  for (const SequenceStart& start : server.starts) started.push_back(start.id.value());
  EXPECT_THAT(started, ElementsAre(1, 2, 3, 2, 3));
}

TEST(Engine, AsksTheRanksToDropAPreemptedSequenceBeforeItsBlocksGoToAnother) {
  EngineConfig config = small_config();
  config.num_blocks = 4;
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  server.add(count_to(3), 12);
  server.add({9, 8, 7}, 12);
  server.run();
  EXPECT_GT(server.engine.stats().preemptions, 0u);
}

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

TEST(Engine, LetsNobodyOvertakeARequestThatWaitsForBlocks) {
  EngineConfig config = small_config();
  config.num_blocks = 6;
  EngineHarness server(config);
  server.add(count_to(3), 4);
  expect_steps(server, {{"+1 1[0,3)*", 0, 1, 0, 5}});
  server.add({9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, 2);
  server.add({7}, 1);
  expect_steps(server, {{"1[3,4)*", 2, 1, 0, 5},
                        {"1[4,5)*", 2, 1, 0, 4},
                        {"1[5,6)*", 2, 1, 0, 4},
                        {"-1 +2 2[0,16)", 1, 1, 0, 1},
                        {"2[16,17)*", 1, 1, 0, 1},
                        {"2[17,18)*", 1, 1, 0, 1},
                        {"-2 +3 3[0,1)*", 0, 1, 0, 5}});
  server.run();
}

TEST(Engine, ServesARequestThatFillsThePool) {
  EngineConfig config = small_config();
  config.num_blocks = 4;
  EngineHarness server(config);
  const SequenceId id = server.add(count_to(10), 7);  // 16 positions are computed
  const SequenceId second = server.add(count_to(10), 7);
  server.run();
  EXPECT_EQ(server.clients[id].tokens.size(), 7u);
  EXPECT_EQ(server.clients[second].tokens.size(), 7u);
}

TEST(Engine, DropsTokensComputedAheadForAnEndedSequence) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  Request request;
  request.id = SequenceId(1);
  request.prompt = {4, 4, 4};
  request.sampling.max_tokens = 50;
  request.sampling.stop_token_ids = {EngineHarness::expected_tokens(request)[2]};
  const std::vector<int32_t> expected = EngineHarness::expected_tokens(request);
  ASSERT_LE(expected.size(), 3u);
  ASSERT_TRUE(server.add(request));
  while (!server.clients[SequenceId(1)].finish) ASSERT_TRUE(server.step());
  EXPECT_EQ(server.in_flight.size(), 1u) << "a plan with a row of it is still out";
  EXPECT_EQ(server.engine.stats().blocks_free, 20) << "its blocks are free at once";
  server.run();
  EXPECT_EQ(server.clients[SequenceId(1)].tokens, expected);
  EXPECT_EQ(server.clients[SequenceId(1)].finish->stop_token_id, expected.back());
  EXPECT_EQ(server.engine.stats().generated_tokens, expected.size());
}

TEST(Engine, EndsARequestFromOutsideInEveryState) {
  EngineConfig config = small_config();
  config.num_blocks = 5;
  config.max_num_seqs = 2;
  EngineHarness server(config);
  const SequenceId running = server.add(count_to(6), 12);
  const SequenceId preempted = server.add({9, 8, 7, 6, 5}, 12);
  const SequenceId waiting = server.add({3}, 4);
  const SequenceId asking = server.add({3}, 4, "a");
  while (server.engine.stats().preempted == 0) {
    server.plan();
    server.absorb();
  }
  server.plan();
  for (const SequenceId id : {running, preempted, waiting, asking}) {
    server.cancel(id);
    ASSERT_TRUE(server.clients[id].finish);
    EXPECT_EQ(server.clients[id].finish->reason, FinishReason::abort);
    server.cancel(id);  // the harness sees that there is no second event
  }
  server.cancel(SequenceId(12345));
  EXPECT_EQ(server.engine.stats().blocks_free, 5);
  server.run();
}

TEST(Engine, ReportsTheReasonItIsGiven) {
  EngineHarness server(small_config());
  const SequenceId id = server.add({1}, 5);
  server.engine.finish(id, FinishReason::stop);
  const std::vector<Event> events = server.engine.take_events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::get<FinishEvent>(events[0]).reason, FinishReason::stop);
  EXPECT_EQ(std::get<FinishEvent>(events[0]).stop_token_id, -1);
}

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

TEST(Engine, RefusesWhatItCannotServe) {
  EngineConfig config = small_config();
  config.num_blocks = 10;
  config.max_num_queued_requests = 2;
  EngineHarness server(config);
  struct Case {
    size_t prompt_size;
    int32_t max_tokens;
    ErrorCode code;
    const char* message;
  };
  const Case cases[] = {
      {0, 1, ErrorCode::invalid_request, "the prompt is empty"},
      {3, 0, ErrorCode::invalid_request, "max_tokens is 0"},
      {3, -5, ErrorCode::invalid_request, "max_tokens is -5"},
      {150, 51, ErrorCode::too_long, "the prompt has 150 tokens and max_tokens is 51, but the context holds 200"},
      {3, 2147483647, ErrorCode::too_long, "max_tokens is 2147483647"},
      {30, 12, ErrorCode::too_long, "needs 11 KV blocks of 4 tokens, but there are 10"},
  };
  for (const Case& c : cases) {
    Request request;
    request.id = SequenceId(1);
    request.prompt.assign(c.prompt_size, 1);
    request.sampling.max_tokens = c.max_tokens;
    const auto added = server.engine.add(request);
    ASSERT_FALSE(added);
    EXPECT_EQ(added.error().code, c.code);
    EXPECT_THAT(added.error().message, HasSubstr(c.message));
  }
  server.add(std::vector<int32_t>(30, 1), 11);
  server.add({1}, 1);
  Request third;
  third.id = SequenceId(3);
  third.prompt = {1};
  EXPECT_EQ(server.engine.add(third).error().code, ErrorCode::queue_full);
  third.id = SequenceId(2);
  EXPECT_EQ(server.engine.add(third).error().code, ErrorCode::internal) << "the id is in use";
  server.run();
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

TEST(Engine, MakesTheSamePlansFromTheSameCalls) {
  const auto plans = [] {
    EngineConfig config = small_config();
    config.num_blocks = 12;
    config.max_plans_in_flight = 2;
    EngineHarness server(config);
    std::vector<StepPlan> made;
    for (int i = 0; i < 30; ++i) {
      server.add(count_to(3 + i % 7), 4 + i % 9, i % 3 == 0 ? "" : fmt::format("adapter {}", i % 5));
      server.grant_leases();
      while (server.plan()) made.push_back(server.in_flight.back());
      server.absorb();
    }
    return made;
  };
  EXPECT_EQ(plans(), plans());
}

TEST(EngineDeathTest, RefusesResultsThatDoNotAnswerItsOldestPlan) {
  EngineHarness server(small_config());
  EXPECT_DEATH(server.engine.absorb({}), "no plan is in flight");
  server.add({1}, 4);
  server.plan();
  const StepResult right = server.rank.execute(server.in_flight.front());
  StepResult wrong = right;
  wrong.step = StepId(2);
  EXPECT_DEATH(server.engine.absorb(wrong), "step");
  wrong = right;
  wrong.epoch = Epoch(2);
  EXPECT_DEATH(server.engine.absorb(wrong), "epoch");
  wrong = right;
  wrong.rows.clear();
  EXPECT_DEATH(server.engine.absorb(wrong), "rows");
  wrong = right;
  wrong.rows[0].id = SequenceId(2);
  EXPECT_DEATH(server.engine.absorb(wrong), "id");
  wrong = right;
  wrong.rows[0].token_id = -1;
  EXPECT_DEATH(server.engine.absorb(wrong), "was to draw a token");
  wrong = right;
  wrong.error = "rank 1 is gone";
  EXPECT_DEATH(server.engine.absorb(wrong), "rank 1 is gone");
  EXPECT_DEATH(server.engine.start_epoch(Epoch(5)), "before the ranks of the last one were lost");
}

}  // namespace
}  // namespace lorikeet::engine
