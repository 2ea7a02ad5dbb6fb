#include "actors/head/serving_core.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/actors/head/serving_core_harness.h"

namespace lorikeet::actors {
namespace {

using engine::ErrorCode;
using engine::FinishReason;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Id = ServingCore::Id;

// ---- requests

TEST(ServingCore, ServesARequestOfTheBaseModel) {
  ServingCoreHarness server;
  server.form();
  const Id id = server.submit({1, 2, 3}, 5);
  EXPECT_EQ(server.plans.size(), 2u) << "the second is sent before the first is answered";
  server.run();
  EXPECT_EQ(server.clients[id].finish, FinishReason::length);
  EXPECT_THAT(server.log, ElementsAre("form 20", "serves 1"));
  EXPECT_GT(server.core.plans_sent_ahead(), 0u);
  server.expect_nothing_left();
}

TEST(ServingCore, ClaimsAnAdapterLeasesItsSlotAndGivesBothBack) {
  ServingCoreHarness server;
  server.form();
  server.log.clear();
  const Id id = server.submit({1, 2, 3}, 5, "moby");
  EXPECT_THAT(server.log, ElementsAre("resolve moby"));
  server.resolve(id);
  EXPECT_THAT(server.log, ElementsAre("resolve moby", "acquire digest of moby"));
  EXPECT_THAT(server.plans, IsEmpty());
  server.run();
  EXPECT_THAT(server.log,
              ElementsAre("resolve moby", "acquire digest of moby", "release digest of moby", "unclaim 1: success"));
  server.expect_nothing_left();
}

TEST(ServingCore, FailsARequestWhoseAdapterIsNotThere) {
  ServingCoreHarness server;
  server.form();
  const Id unread = server.submit({1}, 5, "moby"), unsent = server.submit({1}, 5, "kjv");
  server.resolve(unread, "no lora_B");
  server.resolve(unsent);
  server.grant("rank 1: no memory");
  EXPECT_EQ(server.clients[unread].failure, (engine::RequestError{ErrorCode::adapter_failed, "no lora_B"}));
  EXPECT_EQ(server.clients[unsent].failure, (engine::RequestError{ErrorCode::adapter_failed, "rank 1: no memory"}));
  EXPECT_THAT(server.log, Contains("unclaim 1: none"));
  EXPECT_THAT(server.log, Contains("unclaim 2: none"));
  server.expect_nothing_left();
}

TEST(ServingCore, RefusesWhatIsPastTheQueueWhereverTheOthersWait) {
  ServingCoreHarness server;
  const auto limit = static_cast<size_t>(ServingCoreHarness::config_of(2).engine.max_num_queued_requests);
  for (size_t i = 0; i < limit; ++i) server.submit({1}, 2, i % 2 == 0 ? "" : "moby");
  const Id refused = server.submit({1}, 2);
  EXPECT_EQ(server.clients[refused].failure->code, ErrorCode::queue_full);
  server.form();
  server.run();
  server.expect_nothing_left();
}

TEST(ServingCore, FailsWhatTheEngineRefuses) {
  ServingCoreHarness server;
  server.form();
  const Id id = server.submit({1}, 1000);
  EXPECT_EQ(server.clients[id].failure->code, ErrorCode::too_long);
  server.expect_nothing_left();
}

TEST(ServingCore, NamesAdapterAndPositionOfARowWithoutAToken) {
  ServingCoreHarness server;
  server.form();
  const Id bad = server.submit({1, 2, 3}, 9, "wild"), base = server.submit({4, 5}, 9), good = server.submit({1}, 9);
  server.diverge(bad, 5);
  server.diverge(base, 2);
  server.run();
  EXPECT_EQ(
      server.clients[bad].failure,
      (engine::RequestError{ErrorCode::no_token,
                            "adapter wild: there is no token for position 5: the logits before it are not finite"}));
  EXPECT_EQ(server.clients[bad].tokens.size(), 2u);
  EXPECT_THAT(server.clients[base].failure->message, HasSubstr("the base model: there is no token for position 2"));
  EXPECT_EQ(server.clients[good].finish, FinishReason::length);
  EXPECT_THAT(server.log, Contains("unclaim 1: no_token"));
  EXPECT_FALSE(server.lost);
  server.expect_nothing_left();
}

TEST(ServingCore, BlamesAnAdapterForARestrainedRequestUnlessItForbidsEveryToken) {
  for (const bool forbids : {false, true}) {
    ServingCoreHarness server;
    server.form();
    server.restrain_next = true;
    const Id id = server.submit({1, 2, 3}, 9, "wild");
    server.diverge(id, 5, forbids);
    server.run();
    EXPECT_EQ(server.clients[id].failure->code, forbids ? ErrorCode::invalid_request : ErrorCode::no_token);
    EXPECT_THAT(server.clients[id].failure->message,
                HasSubstr(forbids ? "the request forbids every token there" : "the logits before it are not finite"));
    EXPECT_EQ(std::ranges::count(server.log, "unclaim 1: no_token"), forbids ? 0 : 1);
    server.expect_nothing_left();
  }
}

// ---- cancelled in every state

enum class State { unresolved, held, waiting_for_slot, running, lost, lost_before_its_slot };

class Cancelled : public ::testing::TestWithParam<State> {};

TEST_P(Cancelled, EndsOnceAndLeavesNothing) {
  const State state = GetParam();
  ServingCoreHarness server;
  if (state != State::held) server.form();
  const Id id = server.submit({1, 2, 3}, 9, "moby"), other = server.submit({1}, 4);
  if (state != State::unresolved) server.resolve(id);
  if (state == State::running || state == State::lost) {
    server.grant();
    server.step();
  }
  std::optional<ServingCore::Acquire> asked;
  if (state == State::waiting_for_slot || state == State::lost_before_its_slot) asked = server.take_question();
  if (state == State::lost || state == State::lost_before_its_slot) server.lose();

  server.cancel(id);
  EXPECT_EQ(server.clients[id].finish, FinishReason::abort);
  EXPECT_THAT(server.log, Contains("unclaim 1: none"));

  // What was on its way arrives.
  if (state == State::unresolved) server.resolve(id);
  if (asked) server.answer(*asked, 1);
  if (state == State::lost || state == State::lost_before_its_slot) server.start_epoch();
  if (!server.core.group().serving()) server.form();
  server.cancel(id);  // and again
  server.run();
  EXPECT_EQ(server.clients[other].finish, FinishReason::length);
  server.expect_nothing_left();
}

INSTANTIATE_TEST_SUITE_P(ServingCore, Cancelled,
                         ::testing::Values(State::unresolved, State::held, State::waiting_for_slot, State::running,
                                           State::lost, State::lost_before_its_slot));

// ---- epochs

TEST(ServingCore, HoldsWhatComesBeforeTheGroupServes) {
  ServingCoreHarness server;
  const Id first = server.submit({1, 2}, 3), second = server.submit({3}, 3);
  EXPECT_EQ(server.core.held().size(), 2u);
  server.form();
  EXPECT_EQ(server.core.held().size(), 0u);
  ASSERT_FALSE(server.plans.empty());
  EXPECT_EQ(server.plans[0].starts[0].id, first);
  EXPECT_EQ(server.plans[0].starts[1].id, second);
  server.run();
  server.expect_nothing_left();
}

TEST(ServingCore, LetsStreamsGoOnInTheNextEpoch) {
  ServingCoreHarness server;
  server.form();
  const Id base = server.submit({1, 2, 3}, 12), adapted = server.submit({4, 5}, 12, "moby");
  server.resolve(adapted);
  server.grant();
  for (int i = 0; i < 4; ++i) server.step();
  server.lose("rank 1 was killed");
  EXPECT_EQ(server.lost->loss.why, "rank 1 was killed");
  EXPECT_FALSE(server.clients[base].is_done());
  const Id meanwhile = server.submit({7}, 3);
  server.start_epoch();
  server.log.clear();
  server.form();
  EXPECT_THAT(server.log, ElementsAre("form 20", "serves 2", "acquire digest of moby")) << "the content is claimed";
  server.run();
  for (const Id id : {base, adapted, meanwhile}) EXPECT_EQ(server.clients[id].finish, FinishReason::length);
  EXPECT_EQ(server.core.engine_stats()->resumptions, 2u);
  server.expect_nothing_left();
}

// The fake ranks have new memory in each epoch, so what is not computed again shows in the plan alone.
std::string first_rows_of_the_next_epoch(uint64_t kv_epoch, bool doubts_kv, int32_t num_blocks, bool by_rank = false) {
  ServingCoreHarness server;
  server.form();
  server.submit({1, 2, 3}, 12);
  for (int i = 0; i < 4; ++i) server.step();
  server.lose();
  server.start_epoch(by_rank, doubts_kv);
  server.kv_epoch = kv_epoch;
  server.form(num_blocks);
  const engine::StepPlan& plan = server.plans.at(0);
  return fmt::format("{} of {}", plan.rows.at(0).start, plan.starts.at(0).token_ids.size());
}

TEST(ServingCore, GoesOnWhereItStoppedOnlyWhereAllRanksHaveTheKvCacheThatTheyHad) {
  EXPECT_EQ(first_rows_of_the_next_epoch(1, false, 20), "6 of 7");
  EXPECT_EQ(first_rows_of_the_next_epoch(0, false, 20), "0 of 7") << "they have none";
  EXPECT_EQ(first_rows_of_the_next_epoch(2, false, 20), "0 of 7") << "it is another one";
  EXPECT_EQ(first_rows_of_the_next_epoch(1, true, 20, true), "0 of 7") << "a rank's own fault may have spoilt it";
  EXPECT_EQ(first_rows_of_the_next_epoch(1, true, 20), "0 of 7") << "also where nobody is blamed for it";
  EXPECT_EQ(first_rows_of_the_next_epoch(1, false, 19), "0 of 7") << "it has another size";
}

TEST(ServingCore, TakesASlotOfThePresentEpochAlone) {
  ServingCoreHarness server;
  server.form();
  const Id id = server.submit({1, 2}, 3, "moby");
  server.resolve(id);
  const auto asked = server.take_question();
  server.lose();
  server.answer(asked, 1);  // granted before the ranks were lost, and heard after
  server.start_epoch();
  server.answer(asked, 1, "the ranks do not answer");
  server.form();
  EXPECT_THAT(server.plans, IsEmpty());
  server.answer(asked, 1);
  server.answer(asked, 1, "the ranks do not answer");
  EXPECT_THAT(server.plans, IsEmpty());
  EXPECT_FALSE(server.clients[id].is_done());
  server.run();
  EXPECT_EQ(server.clients[id].finish, FinishReason::length);
  server.expect_nothing_left();
}

TEST(ServingCore, HearsNothingFromRanksThatAreLost) {
  ServingCoreHarness server;
  server.form();
  server.submit({1, 2}, 9);
  const auto late = server.execute(0);
  server.lose();
  server.say(0, late);
  server.core.loaded(0, {5, 1, 1}, server.now);
  server.core.ready(1, server.now);
  EXPECT_TRUE(server.core.group().lost());
  server.lose("another reason");
  EXPECT_EQ(server.lost->loss.why, "rank 1 died") << "the first reason is the one";
  server.start_epoch();
  server.form();
  server.run();
  server.expect_nothing_left();
}

TEST(ServingCore, AsksForAnAdapterAgainThatTheRanksDidNotTake) {
  ServingCoreHarness server;
  server.form();
  const Id id = server.submit({1, 2}, 3, "moby");
  server.resolve(id);
  const auto asked = server.take_question();
  server.core.acquired(asked, 1, engine::kBaseSlot, "the ranks have not taken the adapter in 10 ms", true, server.now);
  server.lose();  // carries the effects out
  EXPECT_EQ(server.lost->loss.why, "the ranks have not taken the adapter in 10 ms");
  EXPECT_FALSE(server.clients[id].is_done());
  server.start_epoch();
  server.form();
  server.run();
  EXPECT_EQ(server.clients[id].finish, FinishReason::length);
  server.expect_nothing_left();
}

TEST(ServingCore, EndsARequestAtWhichTheRanksAlwaysFailAndNoOther) {
  ServingCoreHarness server;
  server.form();
  const Id poison = server.submit({1, 2, 3}, 12);
  for (int i = 0; i <= engine::Engine::kMaxBlamedLosses; ++i) {
    ASSERT_FALSE(server.clients[poison].is_done());
    server.lose("rank 1: an illegal address");
    server.start_epoch(true);
    server.form();
  }
  EXPECT_EQ(server.clients[poison].failure->code, ErrorCode::poison);
  const Id other = server.submit({1, 2, 3}, 12);
  server.run();
  EXPECT_EQ(server.clients[other].finish, FinishReason::length);
  server.expect_nothing_left();
}

TEST(ServingCore, TellsAPeersLossFromARanksOwn) {
  for (const bool peer_failed : {false, true}) {
    ServingCoreHarness server;
    server.form();
    server.submit({1, 2}, 9);
    auto result = server.execute(0);
    result.rows.clear();
    result.error = "all_reduce: connection reset by peer";
    result.peer_failed = peer_failed;
    server.say(0, result);
    ASSERT_TRUE(server.lost);
    EXPECT_EQ(server.lost->loss.by_rank, !peer_failed);
  }
}

TEST(ServingCore, CountsThePauseUntilTheNextResult) {
  ServingCoreHarness server;
  server.form();
  const Id id = server.submit({1, 2}, 9);
  server.step();
  server.now += std::chrono::milliseconds(30);
  server.lose();
  server.start_epoch();
  server.form();
  server.now += std::chrono::milliseconds(5);
  server.run();
  EXPECT_TRUE(server.clients[id].finish);
  ASSERT_EQ(server.core.pauses().latest().size(), 1u);
  EXPECT_EQ(server.core.pauses().latest()[0].detect_us, 30'000u);
  EXPECT_EQ(server.core.pauses().latest()[0].first_token_us, 5'000u);
}

TEST(ServingCore, FitsTheEngineToTheBlocksOfEachEpoch) {
  ServingCoreHarness server;
  server.form(20);
  EXPECT_EQ(server.core.kv_cache_tokens(), 80);
  const Id large = server.submit({1, 2}, 40), small = server.submit({1, 2}, 10);
  server.step();
  server.lose();
  server.start_epoch();
  server.form(5);
  EXPECT_EQ(server.core.kv_cache_tokens(), 20);
  EXPECT_EQ(server.clients[large].failure->code, ErrorCode::too_long);
  server.run();
  EXPECT_EQ(server.clients[small].finish, FinishReason::length);
  server.expect_nothing_left();
}

TEST(ServingCore, WaitsAsLongAsAStepsWorkShouldTake) {
  ServingCore::Config config = ServingCoreHarness::config_of(2);
  config.step_cost.layer_flops_per_token = 1e9;  // a second on a slow CPU
  ServingCoreHarness server(config);
  server.form();
  server.submit({1, 2, 3, 4, 5}, 9);
  server.now += std::chrono::seconds(32 + 20);
  server.core.tick(server.now);
  EXPECT_FALSE(server.core.group().lost());
  server.now += std::chrono::milliseconds(1);
  server.core.tick(server.now);
  EXPECT_TRUE(server.core.group().lost());
}

TEST(ServingCore, LosesRanksThatDoNotAnswerInTime) {
  ServingCoreHarness server;
  server.form();
  server.submit({1, 2}, 9);
  server.say(0, server.execute(0));
  server.now += std::chrono::seconds(32);
  server.core.tick(server.now);
  EXPECT_FALSE(server.core.group().lost());
  server.now += std::chrono::milliseconds(1);
  server.core.tick(server.now);
  server.lose();  // carries the effects out
  EXPECT_EQ(server.lost->loss.why, "ranks 1 have not answered in 32000 ms");
}

TEST(ServingCore, WaitsForNobodyWhereNothingIsInFlight) {
  ServingCoreHarness server;
  server.form();
  server.now += std::chrono::hours(1);
  server.core.tick(server.now);
  EXPECT_FALSE(server.core.group().lost());
}

// ---- grammars

TEST(ServingCore, SendsAGrammarOnceAndStartsItsRequestsWhenAllRanksHaveIt) {
  ServingCoreHarness server;
  server.form();
  server.log.clear();
  server.next_grammar = "a+";
  server.submit({1, 2}, 3);
  server.next_grammar = "a+";
  server.submit({3}, 3);
  EXPECT_THAT(server.log, ElementsAre("grammar a+"));
  EXPECT_THAT(server.plans, IsEmpty()) << "no step waits for what is being compiled";
  const Id other = server.submit({1}, 1);
  ASSERT_EQ(server.plans.size(), 1u) << "nor anybody without a grammar";
  server.run();
  EXPECT_EQ(server.clients[other].finish, FinishReason::length);
  server.next_grammar = "a+";
  server.submit({4}, 3);
  EXPECT_EQ(server.plans.size(), 2u) << "it is still there";
  server.run();
  EXPECT_THAT(server.log, ElementsAre("grammar a+"));
  server.expect_nothing_left();
}

TEST(ServingCore, SendsGrammarsAgainBeforeThePlansOfANewGroup) {
  ServingCoreHarness server;
  server.form();
  server.next_grammar = "a+";
  const Id running = server.submit({1, 2}, 20);
  server.compile();
  server.step();
  server.next_grammar = "b+";
  const Id held = server.submit({1, 2}, 2);
  server.log.clear();
  server.lose();
  server.start_epoch();
  server.form();  // the harness compares plans with the grammars that were sent before
  EXPECT_THAT(server.log, ElementsAre("lost 1", "form 20", "serves 2", "grammar b+", "grammar a+"));
  server.run();
  EXPECT_EQ(server.clients[running].finish, FinishReason::length);
  EXPECT_EQ(server.clients[held].finish, FinishReason::length);
  server.expect_nothing_left();
}

TEST(ServingCore, FailsTheRequestsWhoseGrammarARankCannotCompile) {
  ServingCoreHarness server;
  server.form();
  server.next_grammar = "a+";
  const Id id = server.submit({1, 2}, 3);
  server.next_grammar = "a+";
  const Id gone = server.submit({1, 2}, 3);
  server.cancel(gone);
  server.compile("no memory");
  ASSERT_TRUE(server.clients[id].failure);
  EXPECT_EQ(server.clients[id].failure->message, "the grammar cannot be compiled: rank 1: no memory");
  EXPECT_EQ(server.clients[gone].finish, FinishReason::abort);
  server.next_grammar = "a+";
  const Id again = server.submit({1, 2}, 3);
  server.run();
  EXPECT_EQ(server.clients[again].finish, FinishReason::length) << "it is sent once more";
  server.expect_nothing_left();
}

TEST(ServingCore, LosesRanksThatSayNothingOfAGrammarOrWhatTheyWereNotAsked) {
  ServingCoreHarness server;
  server.form();
  server.next_grammar = "a+";
  server.submit({1, 2}, 3);
  server.now += std::chrono::milliseconds(32'000);
  server.core.tick(server.now);
  EXPECT_FALSE(server.core.group().lost());
  server.now += std::chrono::milliseconds(1);
  server.core.tick(server.now);
  EXPECT_TRUE(server.core.group().lost());
  server.start_epoch();
  EXPECT_EQ(server.lost->loss.why, "a rank has not compiled a grammar in 32000 ms");
  server.form();
  server.core.grammar_compiled(1, {"of nobody", 1, ""}, server.now);
  EXPECT_TRUE(server.core.group().lost());
  server.start_epoch();
  EXPECT_EQ(server.lost->loss.why, "rank 1 answers of a grammar that it was not sent");
  server.form();
  server.run();
  server.expect_nothing_left();
}

// ---- ranks that lie

TEST(ServingCore, LosesTheEpochOfARankThatSaysWhatItWasNotAsked) {
  ServingCoreHarness server;
  server.core.ready(0, server.now);
  EXPECT_TRUE(server.core.group().lost()) << "before it has loaded";
  server.start_epoch();
  ASSERT_TRUE(server.core.admit(0, 1, 2, "", ""));
  server.core.loaded(0, {0, 1, 1}, server.now);
  EXPECT_TRUE(server.core.group().lost()) << "without blocks";
  server.start_epoch();
  server.say(0, {});
  EXPECT_TRUE(server.core.group().lost()) << "a result before there is a plan";
  server.start_epoch();
  server.form();
  const Id id = server.submit({1, 2}, 9);
  auto result = server.execute(1);
  result.rows[0].id = Id(77);
  server.say(1, result);
  EXPECT_TRUE(server.core.group().lost());
  EXPECT_THAT(server.lost->loss.why, HasSubstr("with sequence 77, not 1"));
  server.start_epoch();
  server.form();
  server.run();
  EXPECT_EQ(server.clients[id].finish, FinishReason::length);
  server.expect_nothing_left();
}

}  // namespace
}  // namespace lorikeet::actors
