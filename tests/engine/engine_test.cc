// Batching, chunks, preemption, ends, refusals; other themes have files of their own (engine_*_test.cc).
#include "engine/engine.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "tests/engine/engine_steps.h"

namespace lorikeet::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

TEST(Engine, ShrinksAnOpenMaxTokensToWhatTheKvPoolHolds) {
  for (const size_t prompt : {1u, 3u, 4u, 37u, 40u}) {
    EngineConfig config = small_config();
    config.num_blocks = 10;
    EngineHarness server(config);
    Request request;
    request.id = SequenceId(1);
    request.prompt.assign(prompt, 1);
    request.sampling.max_tokens = config.max_model_len - static_cast<int32_t>(prompt);
    EXPECT_EQ(server.engine.add(request).error().code, ErrorCode::too_long);
    request.max_tokens_may_shrink = true;
    ASSERT_TRUE(server.engine.add(request)) << prompt;
  }
  EngineConfig config = small_config();
  config.num_blocks = 10;
  Request request;
  request.id = SequenceId(1);
  request.prompt.assign(41, 1);
  request.max_tokens_may_shrink = true;
  EXPECT_EQ(EngineHarness(config).engine.add(request).error().code, ErrorCode::too_long) << "not even the prompt fits";
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

TEST(Engine, FailsTheRequestAloneWhoseRowHasNoToken) {
  EngineConfig config = small_config();
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  const SequenceId bad = server.add({1, 2, 3}, 9, "a"), good = server.add({4, 5}, 9, "a");
  server.rank.diverging[bad] = 5;
  server.step();
  server.step();
  EXPECT_FALSE(server.clients[bad].is_done());
  ASSERT_EQ(server.in_flight.size(), 1u);
  server.plan();
  server.absorb();  // the plan behind it has a row of both
  ASSERT_TRUE(server.clients[bad].failure);
  EXPECT_EQ(
      server.clients[bad].failure->error,
      (RequestError{ErrorCode::no_token, "there is no token for position 5: the logits before it are not finite"}));
  EXPECT_EQ(server.clients[bad].tokens.size(), 2u);
  EXPECT_EQ(server.adapters.num_leases(), 2u) << "a row of it is in flight";
  server.run();
  EXPECT_EQ(server.clients[good].tokens.size(), 9u);
}

TEST(Engine, SaysOfARequestWithoutATokenWhetherItForbidsThemAll) {
  std::vector<SamplingParams> kinds(5);
  kinds[0].min_tokens = 2;
  kinds[1].bad_words = {{1, 2}};
  kinds[2].allowed_token_ids = {5};
  kinds[3].answer.grammar_kind = 0;
  for (const bool forbids : {true, false}) {
    for (const SamplingParams& sampling : kinds) {
      EngineHarness server(small_config());
      Request request;
      request.id = SequenceId(1);
      request.prompt = {1, 2, 3};
      request.sampling = sampling;
      request.sampling.max_tokens = 4;
      server.rank.diverging[request.id] = 3;
      if (forbids) server.rank.forbidding.insert(request.id);
      ASSERT_TRUE(server.add(request));
      server.step();
      ASSERT_TRUE(server.clients[request.id].failure);
      EXPECT_EQ(server.clients[request.id].failure->error.code, ErrorCode::no_token);
      EXPECT_EQ(server.clients[request.id].failure->is_its_own, forbids);
      EXPECT_THAT(server.clients[request.id].failure->error.message,
                  ::testing::EndsWith(forbids ? "the request forbids every token there"
                                              : "the logits before it are not finite"));
    }
  }
}

TEST(Engine, FailsARequestWhoseLogprobsAreNoNumbers) {
  for (const bool of_prompt : {false, true}) {
    EngineHarness server(small_config());
    Request request;
    request.id = SequenceId(1);
    request.prompt = {1, 2, 3};
    request.sampling.logprobs = 1;
    request.sampling.prompt_logprobs = of_prompt;
    ASSERT_TRUE(server.add(request));
    ASSERT_TRUE(server.plan());
    StepResult result = server.rank.execute(server.in_flight.front());
    RowResult& row = result.rows[0];
    row.logprobs = {{row.token_id, of_prompt ? -1 : std::nanf("")}};
    if (of_prompt) result.prompts.at(0).logprobs[1] = std::numeric_limits<float>::infinity();
    server.engine.absorb(result);
    const std::vector<Event> events = server.engine.take_events();
    ASSERT_EQ(events.size(), 1u);
    const FailEvent& failure = std::get<Boxed<FailEvent>>(events[0]);
    EXPECT_EQ(failure.error.code, ErrorCode::no_token);
    EXPECT_THAT(failure.error.message, ::testing::HasSubstr(of_prompt ? "position 2:" : "position 3:"));
    EXPECT_EQ(server.engine.stats().blocks_free, 20);
  }
}

TEST(Engine, EndsThousandsAtOnceAndKeepsTheOthersInOrder) {
  EngineConfig config = small_config();
  config.num_blocks = 8000;
  config.max_num_seqs = config.max_num_batched_tokens = 4000;
  config.max_plans_in_flight = 2;
  EngineHarness server(config);
  for (int i = 0; i < 2000; ++i) server.add({i, 1}, 9);
  server.step();
  for (uint64_t id = 1; id <= 2000; ++id) {
    if (id % 100 != 0) server.cancel(SequenceId(id));
  }
  EXPECT_EQ(server.engine.stats().running, 20);
  EXPECT_EQ(server.engine.stats().blocks_free, 8000 - 20);
  ASSERT_TRUE(server.plan());
  const std::vector<StepRow>& rows = server.in_flight.back().rows;
  ASSERT_EQ(rows.size(), 20u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].id, SequenceId(100 * (i + 1)));
  server.run();
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
  wrong.error = "rank 1 is gone";
  EXPECT_DEATH(server.engine.absorb(wrong), "rank 1 is gone");
  EXPECT_DEATH(server.engine.start_epoch(Epoch(5)), "before the ranks of the last one were lost");
}

}  // namespace
}  // namespace lorikeet::engine
