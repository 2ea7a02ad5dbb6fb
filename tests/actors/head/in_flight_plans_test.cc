#include "actors/head/in_flight_plans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using engine::StepId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const InFlightPlans::TimePoint kNow{};
constexpr int32_t kVocabulary = 100;

// A plan in which sequences 1 .. rows each draw a token.
engine::StepPlan plan_of(uint64_t step, size_t rows) {
  engine::StepPlan made;
  made.epoch = engine::Epoch(1);
  made.step = StepId(step);
  for (size_t i = 0; i < rows; ++i) made.rows.push_back({SequenceId(i + 1), 3, 1, true});
  return made;
}

engine::StepResult result(int32_t rank, uint64_t step, std::vector<int32_t> tokens) {
  engine::StepResult made;
  made.epoch = engine::Epoch(1);
  made.step = StepId(step);
  made.rank = rank;
  for (size_t i = 0; i < tokens.size(); ++i) {
    engine::RowResult row;
    row.id = SequenceId(i + 1);
    row.token_id = tokens[i];
    made.rows.push_back(row);
  }
  return made;
}

TEST(InFlightPlans, GivesRank0sResultOnceAllRanksHaveAnswered) {
  InFlightPlans plans(2, kVocabulary);
  auto plan = plan_of(1, 2);
  plan.starts.resize(1);
  plan.starts[0].id = SequenceId(1);
  plan.starts[0].sampling.logprobs = 0;
  plans.sent(plan, kNow);
  auto full = result(0, 1, {5, 6});
  full.rows[0].logprobs = {{5, -0.5F}};
  ASSERT_TRUE(plans.add(full));
  EXPECT_FALSE(plans.take_agreed(kNow));
  EXPECT_THAT(plans.unanswered(), ElementsAre(1));
  ASSERT_TRUE(plans.add(result(1, 1, {5, 6})));
  const auto agreed = plans.take_agreed(kNow);
  ASSERT_TRUE(agreed);
  EXPECT_EQ(*agreed, full);
  EXPECT_EQ(plans.size(), 0u);
}

TEST(InFlightPlans, KeepsTheOrderOfStepsWhenOneRankIsAhead) {
  InFlightPlans plans(2, kVocabulary);
  plans.sent(plan_of(1, 1), kNow);
  plans.sent(plan_of(2, 1), kNow);
  ASSERT_TRUE(plans.add(result(1, 1, {5})));
  ASSERT_TRUE(plans.add(result(1, 2, {6})));
  EXPECT_FALSE(plans.take_agreed(kNow));
  ASSERT_TRUE(plans.add(result(0, 1, {5})));
  EXPECT_EQ(plans.take_agreed(kNow)->step, StepId(1));
  EXPECT_FALSE(plans.take_agreed(kNow));
  ASSERT_TRUE(plans.add(result(0, 2, {6})));
  EXPECT_EQ(plans.take_agreed(kNow)->step, StepId(2));
}

TEST(InFlightPlans, TellsWhichRanksDisagreeAboutWhat) {
  InFlightPlans plans(3, kVocabulary);
  plans.sent(plan_of(1, 2), kNow);
  ASSERT_TRUE(plans.add(result(0, 1, {5, 6})));
  ASSERT_TRUE(plans.add(result(1, 1, {5, 6})));
  const auto ok = plans.add(result(2, 1, {5, 7}));
  ASSERT_FALSE(ok);
  EXPECT_THAT(ok.error().message, HasSubstr("ranks 0 and 2 disagree in row 1 of step 1: token 6"));
}

TEST(InFlightPlans, RefusesWhatWasNotAsked) {
  InFlightPlans plans(2, kVocabulary);
  plans.sent(plan_of(1, 1), kNow);
  EXPECT_FALSE(plans.add(result(0, 2, {5})));
  EXPECT_FALSE(plans.add(result(2, 1, {5})));
  EXPECT_FALSE(plans.add(result(-1, 1, {5})));
  EXPECT_FALSE(plans.add(result(0, 1, {5, 6})));
  EXPECT_TRUE(plans.add(result(0, 1, {5})));
  EXPECT_FALSE(plans.add(result(0, 1, {5})));
}

TEST(InFlightPlans, PassesOnTheErrorOfARank) {
  InFlightPlans plans(2, kVocabulary);
  plans.sent(plan_of(1, 1), kNow);
  auto failed = result(1, 1, {});
  failed.error = "rank 0 is lost";
  const auto ok = plans.add(failed);
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().message, "rank 1: rank 0 is lost");
}

TEST(InFlightPlans, CountTheTimeOfAPlanFromTheAnswerToTheOneBeforeIt) {
  InFlightPlans plans(1, kVocabulary);
  EXPECT_FALSE(plans.oldest_began());
  plans.sent(plan_of(1, 1), kNow + std::chrono::seconds(1));
  plans.sent(plan_of(2, 1), kNow + std::chrono::seconds(2));
  EXPECT_EQ(plans.oldest_began(), kNow + std::chrono::seconds(1));
  ASSERT_TRUE(plans.add(result(0, 1, {5})));
  ASSERT_TRUE(plans.take_agreed(kNow + std::chrono::seconds(20)));
  EXPECT_EQ(plans.oldest_began(), kNow + std::chrono::seconds(20));
  plans.sent(plan_of(3, 1), kNow + std::chrono::seconds(21));
  ASSERT_TRUE(plans.add(result(0, 2, {5})));
  ASSERT_TRUE(plans.take_agreed(kNow + std::chrono::seconds(20)));
  EXPECT_EQ(plans.oldest_began(), kNow + std::chrono::seconds(21)) << "it cannot have begun before it was sent";
  plans.clear();
  EXPECT_FALSE(plans.oldest_began());
}

TEST(InFlightPlans, LetARowHaveNoToken) {
  InFlightPlans plans(2, kVocabulary);
  plans.sent(plan_of(1, 2), kNow);
  ASSERT_TRUE(plans.add(result(0, 1, {5, -1})));
  ASSERT_TRUE(plans.add(result(1, 1, {5, -1})));
  EXPECT_EQ(plans.take_agreed(kNow)->rows[1].token_id, -1);
  plans.sent(plan_of(2, 2), kNow);
  ASSERT_TRUE(plans.add(result(0, 2, {5, -1})));
  EXPECT_THAT(plans.add(result(1, 2, {5, 6})).error().message, HasSubstr("ranks 0 and 1 disagree in row 1"));
}

// Rank 0's right answer to a plan that asks for everything: sequence 1 begins its prompt of 4 tokens, sequence 2 ends
// its prompt of 3 and draws, sequence 3 draws with log-probabilities, sequence 4 without.
class ComparedResults : public ::testing::Test {
 protected:
  ComparedResults() {
    for (uint64_t id = 1; id <= 4; ++id) {
      engine::SequenceStart start;
      start.id = SequenceId(id);
      start.prompt_size = id == 1 ? 4 : 3;
      start.sampling.prompt_logprobs = id <= 2;
      start.sampling.logprobs = id == 3 ? 1 : -1;
      plan_.starts.push_back(start);
    }
    plan_.epoch = engine::Epoch(1);
    plan_.step = StepId(1);
    plan_.rows = {{SequenceId(1), 0, 2, false},
                  {SequenceId(2), 1, 2, true},
                  {SequenceId(3), 7, 1, true},
                  {SequenceId(4), 7, 1, true}};
    right_.epoch = plan_.epoch;
    right_.step = plan_.step;
    right_.rows = {{SequenceId(1), -1, {}},
                   {SequenceId(2), 7, {}},
                   {SequenceId(3), 8, {{9, -0.5F}, {8, -1}}},
                   {SequenceId(4), 9, {}}};
    right_.prompts = {{0, 1, {-1, -2}}, {1, 2, {-3}}};
  }

  std::string said_of(engine::StepResult answer) const {
    InFlightPlans plans(2, kVocabulary);
    plans.sent(plan_, kNow);
    const auto ok = plans.add(std::move(answer));
    return ok ? "" : ok.error().message;
  }

  engine::StepPlan plan_;
  engine::StepResult right_;
};

TEST_F(ComparedResults, PassWhereTheyAnswerThePlan) {
  EXPECT_EQ(said_of(right_), "");
  engine::StepResult brief = right_;
  brief.rank = 1;
  for (engine::RowResult& row : brief.rows) row.logprobs.clear();
  brief.prompts.clear();
  EXPECT_EQ(said_of(brief), "");
}

TEST_F(ComparedResults, MaySayThatARequestForbidsEveryToken) {
  right_.rows[2].token_id = right_.rows[3].token_id = engine::kAllForbidden;
  EXPECT_THAT(said_of(right_), HasSubstr("2 log-probabilities"));
  right_.rows[2].logprobs.clear();
  EXPECT_EQ(said_of(right_), "");
}

TEST_F(ComparedResults, AreRefusedWithWhatIsWrong) {
  const auto with = [this](auto change) {
    engine::StepResult wrong = right_;
    change(wrong);
    return said_of(wrong);
  };
  using Answer = engine::StepResult;
  EXPECT_THAT(with([](Answer& r) { r.epoch = engine::Epoch(2); }), HasSubstr("one of epoch 2"));
  EXPECT_THAT(with([](Answer& r) { r.step = StepId(3); }), HasSubstr("step 3, which it was not asked"));
  EXPECT_THAT(with([](Answer& r) { r.rank = 2; }), HasSubstr("was not asked"));
  EXPECT_THAT(with([](Answer& r) { r.rows.pop_back(); }), HasSubstr("3 rows of 4"));
  EXPECT_THAT(with([](Answer& r) { r.rows[1].id = SequenceId(3); }), HasSubstr("with sequence 3, not 2"));
  EXPECT_THAT(with([](Answer& r) { r.rows[0].token_id = 4; }), HasSubstr("which was to draw none"));
  EXPECT_THAT(with([](Answer& r) { r.rows[3].token_id = kVocabulary; }), HasSubstr("token 100 for sequence 4"));
  EXPECT_THAT(with([](Answer& r) { r.rows[3].token_id = -3; }), HasSubstr("token -3 for sequence 4"));
  EXPECT_THAT(with([](Answer& r) { r.rows[0].token_id = engine::kAllForbidden; }), HasSubstr("was to draw none"));
  EXPECT_THAT(with([](Answer& r) { r.rows[3].logprobs = {{9, -1}}; }), HasSubstr("1 log-probabilities"));
  EXPECT_THAT(with([](Answer& r) { r.rows[2].logprobs.clear(); }), HasSubstr("0 log-probabilities"));
  EXPECT_THAT(with([](Answer& r) { r.rows[2].logprobs.resize(3); }), HasSubstr("3 log-probabilities"));
  EXPECT_THAT(with([](Answer& r) { r.rows[2].logprobs[0].token_id = -7; }), HasSubstr("of token -7"));
  EXPECT_THAT(with([](Answer& r) { r.rows[2].logprobs[1].token_id = 9; }), HasSubstr("without the log-probability"));
  EXPECT_THAT(with([](Answer& r) { r.rows[2].token_id = -1; }), HasSubstr("2 log-probabilities"));
  EXPECT_THAT(with([](Answer& r) { r.prompts[0].logprobs.push_back(0); }), HasSubstr("not 2 from 1"));
  EXPECT_THAT(with([](Answer& r) { r.prompts[1].start = 1; }), HasSubstr("not 1 from 2"));
  EXPECT_THAT(with([](Answer& r) { r.prompts.pop_back(); }), HasSubstr("not 1 from 2"));
  EXPECT_THAT(with([](Answer& r) { std::swap(r.prompts[0], r.prompts[1]); }), HasSubstr("not 2 from 1"));
  EXPECT_THAT(with([](Answer& r) { r.prompts[1].row = -1; }), HasSubstr("not 1 from 2"));
  EXPECT_THAT(with([](Answer& r) { r.prompts.push_back({3, 0, {-1}}); }), HasSubstr("for row 3, which was not asked"));
  EXPECT_THAT(with([](Answer& r) { r.prompts.push_back(r.prompts[1]); }), HasSubstr("for row 1, which was not asked"));
  EXPECT_THAT(with([](Answer& r) {
                r.rank = 1;
                r.rows[2].logprobs.clear();
              }),
              HasSubstr("for row 0, which was not asked"));
  EXPECT_THAT(with([](Answer& r) { r.rank = 1; }), HasSubstr("log-probabilities")) << "rank 1 tells tokens alone";
}

TEST_F(ComparedResults, HaveRanksAndBestTokensOfThePromptAsAsked) {
  plan_.starts[0].sampling.prompt_top_logprobs = 1;
  EXPECT_THAT(said_of(right_), HasSubstr("with 0 ranks and 0 lists of best tokens of the prompt of sequence 1, not 2"));
  right_.prompts[0].ranks = {1, 7};
  right_.prompts[0].best = {{{5, -0.5F}}, {}};
  EXPECT_EQ(said_of(right_), "");
  right_.prompts[0].best[1] = {{kVocabulary, -1}};
  EXPECT_THAT(said_of(right_), HasSubstr("that are none, or too many"));
  right_.prompts[0].best[1] = {{5, -1}, {6, -2}};
  EXPECT_THAT(said_of(right_), HasSubstr("that are none, or too many"));
}

TEST_F(ComparedResults, KnowAsLittleOfAFinishedSequenceAsTheRanks) {
  InFlightPlans plans(1, kVocabulary);
  plans.sent(plan_, kNow);
  engine::StepPlan next = plan_of(2, 0);
  next.finished = {SequenceId(3)};
  next.starts.resize(1);
  next.starts[0].id = SequenceId(3);  // preempted, and started again without log-probabilities
  next.rows = {{SequenceId(3), 0, 9, true}};
  plans.sent(next, kNow);
  engine::StepResult answer;
  answer.epoch = next.epoch;
  answer.step = next.step;
  answer.rows = {{SequenceId(3), 8, {{8, -1}}}};
  EXPECT_FALSE(plans.add(answer));
  answer.rows[0].logprobs.clear();
  EXPECT_TRUE(plans.add(answer));
}

}  // namespace
}  // namespace lorikeet::actors
