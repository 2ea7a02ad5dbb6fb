#include "engine/sequence.h"

#include <gmock/gmock.h>

namespace lorikeet::engine {
namespace {

using ::testing::ElementsAre;

Sequence make(std::vector<int32_t> prompt, int32_t max_tokens, std::vector<int32_t> stops = {},
              std::string adapter = "", bool prompt_logprobs = false) {
  Request request;
  request.id = SequenceId(9);
  request.prompt = std::move(prompt);
  request.adapter = std::move(adapter);
  request.sampling.max_tokens = max_tokens;
  request.sampling.stop_token_ids = std::move(stops);
  request.sampling.prompt_logprobs = prompt_logprobs;
  return Sequence(std::move(request), 1, GroupId(0), Prefix{PrefixId(1)});
}

TEST(Sequence, SamplesWithTheRowThatEndsItsTokens) {
  Sequence sequence = make({1, 2, 3, 4, 5}, 3);
  sequence.start(1, 0);
  EXPECT_EQ(sequence.remaining(), 5);
  EXPECT_EQ(sequence.plan_row(2), (StepRow{SequenceId(9), 0, 2, false}));
  EXPECT_EQ(sequence.plan_row(3), (StepRow{SequenceId(9), 2, 3, true}));
  EXPECT_EQ(sequence.rows_in_flight(), 2);
}

TEST(Sequence, TakesPendingTokensIntoLaterRows) {
  Sequence sequence = make({1, 2}, 3);
  sequence.start(1, 0);
  sequence.plan_row(2);
  EXPECT_EQ(sequence.num_tokens(), 3);
  EXPECT_EQ(sequence.plan_row(1), (StepRow{SequenceId(9), 2, 1, true}));
  EXPECT_EQ(sequence.plan_row(1), (StepRow{SequenceId(9), 3, 1, true}));
  EXPECT_EQ(sequence.remaining(), 0) << "the last token is never computed";
  sequence.row_returned();
  EXPECT_FALSE(sequence.append_token(7).complete);
  EXPECT_THAT(sequence.tokens(), ElementsAre(1, 2, 7));
  EXPECT_EQ(sequence.remaining(), 0);
}

TEST(Sequence, IsCompleteAtMaxTokensOrAStopId) {
  struct Case {
    std::vector<int32_t> drawn;
    FinishReason reason;
    int32_t stop_token_id;
  };
  const Case cases[] = {
      {{5, 6, 7}, FinishReason::length, -1}, {{5, 40}, FinishReason::stop, 40}, {{5, 6, 41}, FinishReason::stop, 41}};
  for (const Case& c : cases) {
    Sequence sequence = make({1}, 3, {40, 41});
    sequence.start(1, 0);
    for (size_t i = 0; i < c.drawn.size(); ++i) {
      sequence.plan_row(1);
      sequence.row_returned();
      const Sequence::Outcome outcome = sequence.append_token(c.drawn[i]);
      ASSERT_EQ(outcome.complete, i + 1 == c.drawn.size());
      if (!outcome.complete) continue;
      EXPECT_EQ(outcome.reason, c.reason);
      EXPECT_EQ(outcome.stop_token_id, c.stop_token_id);
    }
  }
}

TEST(Sequence, ResumesFromItsPromptAndTheTokensEmitted) {
  Sequence sequence = make({1, 2}, 4);
  sequence.start(3, 0);
  sequence.plan_row(2);
  sequence.plan_row(1);
  sequence.preempt();
  EXPECT_FALSE(sequence.can_start()) << "two tokens are still to come";
  for (const int32_t token : {7, 8}) {
    sequence.row_returned();
    sequence.append_token(token);
  }
  ASSERT_TRUE(sequence.can_start());
  const SequenceStart start = sequence.start(10, 2);
  EXPECT_THAT(start.token_ids, ElementsAre(1, 2, 7, 8));
  EXPECT_EQ(start.prompt_size, 2);
  EXPECT_EQ(sequence.admission(), 3u) << "it keeps its age";
  EXPECT_EQ(sequence.num_cached_tokens(), 0) << "prefix hits of a resumption are not the prompt's";
  EXPECT_EQ(sequence.plan_row(2), (StepRow{SequenceId(9), 2, 2, true}));
}

TEST(Sequence, CountsRecomputedPositionsOnce) {
  Sequence sequence = make({1, 2, 3, 4}, 4);
  sequence.start(1, 0);
  sequence.plan_row(3);
  EXPECT_EQ(sequence.take_uncharged(), 3);
  sequence.preempt();
  sequence.row_returned();
  sequence.start(1, 0);
  sequence.plan_row(2);
  EXPECT_EQ(sequence.take_uncharged(), 0);
  sequence.plan_row(2);
  EXPECT_EQ(sequence.take_uncharged(), 1);
}

TEST(Sequence, ReportsEachPromptLogprobOnce) {
  Sequence sequence = make({1, 2, 3, 4, 5}, 2, {}, "", true);
  EXPECT_TRUE(sequence.start(1, 0).sampling.prompt_logprobs);
  EXPECT_THAT(sequence.take_prompt_logprobs(1, {-1, -2}).values, ElementsAre(-1, -2));
  // Preempted here, and computed again in chunks that do not meet the old ones' edges.
  EXPECT_THAT(sequence.take_prompt_logprobs(1, {-1}).values, ElementsAre());
  const PromptLogprobsEvent event = sequence.take_prompt_logprobs(2, {-2, -3});
  EXPECT_EQ(event.start, 3);
  EXPECT_THAT(event.values, ElementsAre(-3));
  EXPECT_TRUE(sequence.wants_prompt_logprobs());
  EXPECT_THAT(sequence.take_prompt_logprobs(4, {-4}).values, ElementsAre(-4));
  EXPECT_FALSE(sequence.wants_prompt_logprobs());
}

TEST(Sequence, WaitsForItsAdapter) {
  Sequence sequence = make({1}, 1, {}, "digest");
  EXPECT_EQ(sequence.lease(), LeaseState::unasked);
  EXPECT_FALSE(sequence.can_start());
  sequence.set_lease(LeaseState::asked);
  EXPECT_FALSE(sequence.can_start());
  sequence.hold_lease(SlotId(3));
  ASSERT_TRUE(sequence.can_start());
  EXPECT_EQ(sequence.start(1, 0).slot, SlotId(3));
}

TEST(SequenceDeathTest, ChangesStateOnlyAlongTheDiagram) {
  Sequence sequence = make({1, 2}, 2);
  EXPECT_DEATH(sequence.plan_row(1), "waiting");
  EXPECT_DEATH(sequence.preempt(), "is waiting, not running");
  EXPECT_DEATH(sequence.row_returned(), "rows_in_flight");
  EXPECT_DEATH(sequence.hold_lease(SlotId(1)), "asked for no lease");
  sequence.start(1, 0);
  EXPECT_DEATH(sequence.start(2, 0), "running");
  EXPECT_DEATH(sequence.plan_row(3), "remaining");
  sequence.end();
  EXPECT_DEATH(sequence.end(), "ended twice");
  EXPECT_DEATH(sequence.append_token(1), "ended");
}

TEST(Sequence, CutsRanksAndBestTokensOfAPromptAsItsLogprobs) {
  Sequence sequence = make({1, 2, 3, 4}, 1, {}, "", true);
  sequence.take_prompt_logprobs(1, {-1, -2}, {3, 4}, {{{7, -0.5F}}, {{8, -0.25F}}});
  const PromptLogprobsEvent event = sequence.take_prompt_logprobs(2, {-2, -3}, {4, 5}, {{{8, -0.25F}}, {{9, -0.125F}}});
  EXPECT_EQ(event.start, 3);
  EXPECT_THAT(event.values, ElementsAre(-3));
  EXPECT_THAT(event.ranks, ElementsAre(5));
  ASSERT_EQ(event.best.size(), 1u);
  EXPECT_EQ(event.best[0].at(0).token_id, 9);
}

}  // namespace
}  // namespace lorikeet::engine
