#include "actors/rank/step_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/actors/fake_model.h"

namespace lorikeet::actors {
namespace {

using engine::BlockId;
using engine::SequenceId;
using engine::SlotId;
using engine::StepId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

engine::SequenceStart start_of(uint64_t id, std::vector<int32_t> tokens, int32_t prompt_size = -1) {
  engine::SequenceStart start;
  start.id = SequenceId(id);
  start.prompt_size = prompt_size < 0 ? static_cast<int32_t>(tokens.size()) : prompt_size;
  start.token_ids = std::move(tokens);
  return start;
}

engine::BlockAppend blocks_of(uint64_t id, std::vector<int32_t> blocks) {
  engine::BlockAppend append;
  append.id = SequenceId(id);
  for (const int32_t block : blocks) append.blocks.emplace_back(block);
  return append;
}

engine::StepRow row_of(uint64_t id, int32_t start, int32_t count, bool sample) {
  return {SequenceId(id), start, count, sample};
}

class StepExecutorTest : public ::testing::Test {
 protected:
  engine::StepPlan plan() {
    engine::StepPlan made;
    made.epoch = engine::Epoch(1);
    made.step = StepId(++step_);
    return made;
  }

  engine::StepPlan first_plan(engine::SequenceStart start) {
    engine::StepPlan made = plan();
    const uint64_t id = start.id.value();
    const auto size = static_cast<int32_t>(start.token_ids.size());
    made.starts = {std::move(start)};
    made.blocks = {blocks_of(id, {3, 1, 2})};
    made.rows = {row_of(id, 0, size, true)};
    return made;
  }

  engine::StepPlan decode(uint64_t id, int32_t position) {
    engine::StepPlan made = plan();
    made.rows = {row_of(id, position, 1, true)};
    return made;
  }

  std::string refusal(const engine::StepPlan& bad) {
    const auto ok = executor_.begin(bad);
    return ok ? "" : ok.error().message;
  }

  const FakeRow& last_row(size_t row = 0) { return model_.begun.back().at(row); }

  FakeModel model_;
  StepExecutor executor_{model_, 0, 4, 8, 2};
  uint64_t step_ = 0;
};

TEST_F(StepExecutorTest, ComputesAPromptAndThenWhatItDrew) {
  ASSERT_TRUE(executor_.begin(first_plan(start_of(1, {7, 8, 9}))));
  EXPECT_THAT(last_row().token_ids, ElementsAre(7, 8, 9));
  EXPECT_THAT(last_row().blocks, ElementsAre(3, 1, 2));
  EXPECT_EQ(last_row().prompt_size, 3);
  const auto first = executor_.finish().value();
  EXPECT_EQ(first.step, StepId(1));
  EXPECT_EQ(first.rows[0].token_id, 1003);
  ASSERT_TRUE(executor_.begin(decode(1, 3)));
  EXPECT_THAT(last_row().token_ids, ElementsAre(1003));
  EXPECT_EQ(last_row().start, 3);
  EXPECT_EQ(executor_.finish().value().rows[0].token_id, 1004);
}

// Allows the tokens of FakeModel, one after the other: 1000 + position of the prompt's end, and so on.
class InTurn final : public model::GrammarState {
 public:
  bool accept(int32_t token) override {
    last_ = token;
    return true;
  }
  void fill(std::span<uint32_t> allowed) override {
    std::fill(allowed.begin(), allowed.end(), 0U);
    allowed[static_cast<size_t>(last_ + 1) / 32] |= 1U << ((last_ + 1) % 32);
  }

 private:
  int32_t last_ = 1001;
};
class InTurnGrammar final : public model::CompiledGrammar {
 public:
  std::unique_ptr<model::GrammarState> begin(const std::vector<int32_t>&) const override {
    return std::make_unique<InTurn>();
  }
  size_t bytes() const override { return 1; }
};

class GrammarExecutorTest : public StepExecutorTest {
 protected:
  static FindGrammar source() {
    return
        [](const std::string& digest) { return digest == "none" ? nullptr : std::make_shared<const InTurnGrammar>(); };
  }
  static engine::SequenceStart held(engine::SequenceStart start, std::string grammar = "in turn") {
    start.sampling.answer.grammar_kind = 1;
    start.sampling.answer.grammar = std::move(grammar);
    return start;
  }
  std::vector<int32_t> allowed(size_t row = 0) {
    std::vector<int32_t> ids;
    const auto& words = model_.begun.back().at(row).allowed;
    for (size_t id = 0; id < words.size() * 32; ++id) {
      if ((words[id / 32] >> (id % 32) & 1) != 0) ids.push_back(static_cast<int32_t>(id));
    }
    return ids;
  }

  StepExecutor grammar_executor_{model_, 0, 4, 8, 2, source(), 1100};
};

TEST_F(GrammarExecutorTest, MasksADrawByTheTokensBeforeIt) {
  ASSERT_TRUE(grammar_executor_.begin(first_plan(held(start_of(1, {7, 8})))));
  EXPECT_THAT(allowed(), ElementsAre(1002));
  const engine::StepPlan next = decode(1, 2);
  EXPECT_TRUE(grammar_executor_.must_wait(next)) << "the token before it is still being drawn";
  ASSERT_TRUE(grammar_executor_.finish());
  EXPECT_FALSE(grammar_executor_.must_wait(next));
  ASSERT_TRUE(grammar_executor_.begin(next));
  EXPECT_THAT(allowed(), ElementsAre(1003));
}

TEST_F(GrammarExecutorTest, MasksADrawWhileItsStepIsComputedWhereTheModelTakesThat) {
  model_.later = true;
  auto start = held(start_of(1, {7, 8}));
  start.sampling.min_tokens = 3;
  start.sampling.ids_after_min_tokens = {1050};
  ASSERT_TRUE(grammar_executor_.begin(first_plan(start)));
  EXPECT_THAT(allowed(), ElementsAre(1002)) << "what it takes is known";
  EXPECT_FALSE(grammar_executor_.awaits_constraints());
  const engine::StepPlan next = decode(1, 2);
  EXPECT_FALSE(grammar_executor_.must_wait(next));
  ASSERT_TRUE(grammar_executor_.begin(next));
  EXPECT_TRUE(grammar_executor_.awaits_constraints());
  EXPECT_THAT(allowed(), IsEmpty());
  EXPECT_EQ(last_row().biases.size(), 1U) << "there is room for as many";
  ASSERT_TRUE(grammar_executor_.finish());
  EXPECT_TRUE(grammar_executor_.awaits_constraints());
  grammar_executor_.constrain();
  EXPECT_FALSE(grammar_executor_.awaits_constraints());
  EXPECT_THAT(allowed(), ElementsAre(1003));
  EXPECT_EQ(last_row().biases.size(), 1U) << "min_tokens counts as ever";
  EXPECT_EQ(grammar_executor_.finish().value().rows[0].token_id, 1003);
}

TEST_F(GrammarExecutorTest, GoesOnWhereAnInterruptedAnswerWas) {
  ASSERT_TRUE(grammar_executor_.begin(first_plan(held(start_of(1, {7, 8, 1002, 1003}, 2)))));
  EXPECT_THAT(allowed(), ElementsAre(1004));
}

TEST_F(GrammarExecutorTest, WaitsForNobodyElse) {
  engine::StepPlan both = first_plan(start_of(1, {7}));
  both.starts.push_back(held(start_of(2, {5, 6})));
  both.blocks.push_back(blocks_of(2, {4}));
  both.rows.push_back(row_of(2, 0, 1, false));
  ASSERT_TRUE(grammar_executor_.begin(both));
  EXPECT_THAT(allowed(0), IsEmpty());
  engine::StepPlan next = plan();
  next.rows = {row_of(1, 1, 1, true), row_of(2, 1, 1, true)};
  EXPECT_FALSE(grammar_executor_.must_wait(next)) << "the prompt's end draws its first token now";
  ASSERT_TRUE(grammar_executor_.begin(next));
  EXPECT_THAT(allowed(0), IsEmpty());
  EXPECT_THAT(allowed(1), ElementsAre(1002));
}

TEST_F(GrammarExecutorTest, AllowsNothingWhereAGrammarCannotBeCompiled) {
  ASSERT_TRUE(grammar_executor_.begin(first_plan(held(start_of(1, {7, 8}), "none"))));
  EXPECT_THAT(model_.begun.back().at(0).allowed, ElementsAre(0U));
  ASSERT_TRUE(executor_.begin(first_plan(held(start_of(1, {7, 8})))));
  EXPECT_THAT(model_.begun.back().at(0).allowed, ElementsAre(0U)) << "nor where there are none at all";
}

TEST_F(GrammarExecutorTest, LetsAnAnswerEndThatMinTokensWouldHoldBack) {
  auto start = held(start_of(1, {7, 8}));
  start.sampling.min_tokens = 5;
  start.sampling.ids_after_min_tokens = {1002};
  ASSERT_TRUE(grammar_executor_.begin(first_plan(start)));
  EXPECT_THAT(allowed(), ElementsAre(1002));
  EXPECT_THAT(model_.begun.back().at(0).biases, IsEmpty());
}

TEST_F(StepExecutorTest, TellsWhatAStepTookAndWhetherItDecoded) {
  model_.times = {1.5, 0.25};
  ASSERT_TRUE(executor_.begin(first_plan(start_of(1, {7, 8, 9}))));
  EXPECT_EQ(executor_.finish().value().times, (engine::StepTimes{1'500'000, 250'000, false}));
  ASSERT_TRUE(executor_.begin(decode(1, 3)));
  EXPECT_EQ(executor_.finish().value().times, (engine::StepTimes{1'500'000, 250'000, true}));
}

TEST_F(StepExecutorTest, FeedsAStepWithTheTokenThatTheOneBeforeDraws) {
  engine::StepPlan both = first_plan(start_of(1, {7}));
  both.starts.push_back(start_of(2, {5, 6}));
  both.blocks.push_back(blocks_of(2, {4}));
  both.rows.push_back(row_of(2, 0, 2, true));
  ASSERT_TRUE(executor_.begin(both));
  engine::StepPlan next = plan();
  next.rows = {row_of(2, 2, 1, true), row_of(1, 1, 1, true)};
  ASSERT_TRUE(executor_.begin(next));
  EXPECT_THAT(last_row(0).token_ids, ElementsAre(model::kPendingToken));
  EXPECT_EQ(last_row(0).pending_row, 1);
  EXPECT_EQ(last_row(1).pending_row, 0);
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.begin(decode(1, 2)));
  EXPECT_EQ(last_row().pending_row, 1);
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.begin(decode(1, 3)));
  EXPECT_THAT(last_row().token_ids, ElementsAre(1003));
  EXPECT_EQ(last_row().pending_row, -1);
}

// Draws are restrained by what was generated, of which a sequence that starts anew brings its part.
TEST_F(StepExecutorTest, RestrainsADrawAlikeBeforeAndAfterAPreemption) {
  engine::SequenceStart start = start_of(1, {7, 8});
  start.sampling.bad_words = {{1002, 1003, 5}};
  start.sampling.min_tokens = 2;
  start.sampling.ids_after_min_tokens = {6};
  ASSERT_TRUE(executor_.begin(first_plan(start)));
  ASSERT_EQ(last_row().biases.size(), 1U);
  EXPECT_EQ(last_row().biases[0].token_id, 6);
  ASSERT_TRUE(executor_.begin(decode(1, 2)));
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.begin(decode(1, 3)));
  const std::vector<kernels::TokenBias> third = last_row().biases;
  ASSERT_EQ(third.size(), 1U) << "past min_tokens, behind 1002 and a token that is not known yet";
  EXPECT_EQ(third[0].token_id, 5);
  EXPECT_EQ(third[0].after, 1003);
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.finish());

  start.token_ids = {7, 8, 1002, 1003};
  engine::StepPlan anew = first_plan(start);
  anew.finished = {SequenceId(1)};
  ASSERT_TRUE(executor_.begin(anew));
  ASSERT_EQ(last_row().biases.size(), 1U);
  EXPECT_EQ(last_row().biases[0].token_id, third[0].token_id);
  EXPECT_EQ(last_row().biases[0].after, third[0].after);
  ASSERT_TRUE(executor_.finish());
}

TEST_F(StepExecutorTest, ComputesAPromptInChunks) {
  engine::StepPlan first = first_plan(start_of(1, {7, 8, 9}));
  first.rows = {row_of(1, 0, 2, false)};
  ASSERT_TRUE(executor_.begin(first));
  EXPECT_EQ(executor_.finish().value().rows[0].token_id, -1);
  engine::StepPlan second = plan();
  second.rows = {row_of(1, 2, 1, true)};
  ASSERT_TRUE(executor_.begin(second));
  EXPECT_THAT(last_row().token_ids, ElementsAre(9));
  EXPECT_EQ(executor_.finish().value().rows[0].token_id, 1003);
}

TEST_F(StepExecutorTest, ComputesFewTokensThatItHadGeneratedAsDecodingDid) {
  engine::StepPlan anew = first_plan(start_of(1, {7, 8, 9, 10, 11}, 2));
  anew.rows = {row_of(1, 0, 2, false)};
  ASSERT_TRUE(executor_.begin(anew));
  EXPECT_FALSE(last_row().decode) << "its prompt";
  ASSERT_TRUE(executor_.finish());
  engine::StepPlan behind = plan();
  behind.rows = {row_of(1, 2, 3, true)};
  ASSERT_TRUE(executor_.begin(behind));
  EXPECT_TRUE(last_row().decode);
  ASSERT_TRUE(executor_.finish());

  std::vector<int32_t> tokens(11, 5);
  for (const int32_t prompt_size : {1, 2}) {  // 8 generated tokens and 9
    anew = first_plan(start_of(1, tokens, prompt_size));
    anew.finished = {SequenceId(1)};
    anew.rows = {row_of(1, 0, 2, false)};
    ASSERT_TRUE(executor_.begin(anew));
    ASSERT_TRUE(executor_.finish());
    behind = plan();
    behind.rows = {row_of(1, 2, prompt_size == 1 ? 8 : 9, prompt_size == 2)};
    ASSERT_TRUE(executor_.begin(behind));
    EXPECT_EQ(last_row().decode, prompt_size == 1);
    ASSERT_TRUE(executor_.finish());
  }
}

TEST_F(StepExecutorTest, CountsTokensForPenaltiesOnly) {
  auto start = start_of(1, {9, 7, 9, 5, 5}, 3);
  start.sampling.frequency_penalty = 0.5F;
  ASSERT_TRUE(executor_.begin(first_plan(start)));
  const auto counts = last_row().counts;
  ASSERT_EQ(counts.size(), 3u);
  EXPECT_EQ(counts[0].token_id, 5);
  EXPECT_EQ(counts[0].in_output, 2);
  EXPECT_FALSE(counts[0].in_prompt);
  EXPECT_EQ(counts[1].token_id, 7);
  EXPECT_TRUE(counts[1].in_prompt);
  EXPECT_EQ(counts[2].token_id, 9);
  EXPECT_EQ(counts[2].in_output, 0);
  ASSERT_TRUE(executor_.begin(decode(1, 5)));
  EXPECT_EQ(last_row().counts.size(), 3u) << "a pending token is counted by the model";
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.begin(decode(1, 6)));
  EXPECT_EQ(last_row().counts.back().token_id, 1006);
  EXPECT_EQ(last_row().counts.back().in_output, 1);

  engine::StepPlan plain = first_plan(start_of(2, {9, 7}));
  ASSERT_TRUE(executor_.begin(plain));
  EXPECT_THAT(last_row().counts, IsEmpty());
}

TEST_F(StepExecutorTest, AsksForTheLogprobsOfPromptTokensAlone) {
  auto start = start_of(1, {10, 11, 12, 13, 50}, 4);
  start.sampling.prompt_logprobs = true;
  engine::StepPlan first = first_plan(start);
  first.rows = {row_of(1, 0, 2, false)};
  ASSERT_TRUE(executor_.begin(first));
  EXPECT_THAT(last_row().targets, ElementsAre(11, 12));
  auto result = executor_.finish().value();
  ASSERT_EQ(result.prompts.size(), 1u);
  EXPECT_EQ(result.prompts[0].row, 0);
  EXPECT_EQ(result.prompts[0].start, 1);
  EXPECT_THAT(result.prompts[0].logprobs, ElementsAre(-11.0F, -12.0F));
  engine::StepPlan second = plan();
  second.rows = {row_of(1, 2, 3, true)};
  ASSERT_TRUE(executor_.begin(second));
  EXPECT_THAT(last_row().targets, ElementsAre(13, -1, -1));
  result = executor_.finish().value();
  ASSERT_EQ(result.prompts.size(), 1u);
  EXPECT_EQ(result.prompts[0].start, 3);
  EXPECT_THAT(result.prompts[0].logprobs, ElementsAre(-13.0F));
  ASSERT_TRUE(executor_.begin(decode(1, 5)));
  EXPECT_THAT(last_row().targets, IsEmpty());
}

TEST_F(StepExecutorTest, ReportsRanksAndBestTokensOfAPromptWhereTheyAreWanted) {
  auto start = start_of(1, {10, 11, 12});
  start.sampling.prompt_logprobs = true;
  start.sampling.prompt_top_logprobs = 1;
  ASSERT_TRUE(executor_.begin(first_plan(start)));
  EXPECT_EQ(last_row().sampling.target_top_logprobs, 1);
  const auto prompt = executor_.finish().value().prompts.at(0);
  EXPECT_THAT(prompt.ranks, ElementsAre(12, 13));
  ASSERT_EQ(prompt.best.size(), 2u);
  EXPECT_EQ(prompt.best[1].at(0).token_id, 14);
}

TEST_F(StepExecutorTest, ReportsEverythingOnRank0AndTokensAloneOnTheOthers) {
  auto start = start_of(1, {7, 8});
  start.sampling.logprobs = 1;
  start.sampling.prompt_logprobs = true;
  ASSERT_TRUE(executor_.begin(first_plan(start)));
  const auto full = executor_.finish().value();
  EXPECT_EQ(full.rows[0].logprobs.size(), 1u);
  ASSERT_EQ(full.prompts.size(), 1u);
  EXPECT_EQ(full.prompts[0].logprobs.size(), 1u);

  FakeModel other_model;
  StepExecutor other(other_model, 1, 4, 8, 2);
  ASSERT_TRUE(other.begin(first_plan(start)));
  const auto brief = other.finish().value();
  EXPECT_EQ(brief.rank, 1);
  EXPECT_EQ(brief.rows[0].token_id, full.rows[0].token_id);
  EXPECT_THAT(brief.rows[0].logprobs, IsEmpty());
  EXPECT_THAT(brief.prompts, IsEmpty());
}

TEST_F(StepExecutorTest, ForgetsAFinishedSequenceWhileItsStepIsInFlight) {
  ASSERT_TRUE(executor_.begin(first_plan(start_of(1, {7}))));
  engine::StepPlan next = first_plan(start_of(1, {7, 1001, 4}, 1));  // preempted, and started again
  next.finished = {SequenceId(1)};
  ASSERT_TRUE(executor_.begin(next));
  ASSERT_TRUE(executor_.finish());  // of its former life
  ASSERT_TRUE(executor_.finish());
  ASSERT_TRUE(executor_.begin(decode(1, 3)));
  EXPECT_THAT(last_row().token_ids, ElementsAre(1003));
  ASSERT_TRUE(executor_.finish());
  engine::StepPlan end = plan();
  end.finished = {SequenceId(1)};
  ASSERT_TRUE(executor_.begin(end));
  EXPECT_EQ(executor_.sequences(), 0u);
}

TEST_F(StepExecutorTest, GoesOnWithOthersWhereARowHasNoToken) {
  model_.no_token_at = 1;
  engine::StepPlan both = first_plan(start_of(1, {7}));
  both.starts[0].sampling.logprobs = 1;
  both.starts[0].sampling.frequency_penalty = 0.5F;
  both.starts.push_back(start_of(2, {5, 6}));
  both.blocks.push_back(blocks_of(2, {4}));
  both.rows.push_back(row_of(2, 0, 2, true));
  ASSERT_TRUE(executor_.begin(both));
  const auto result = executor_.finish().value();
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.rows[0].token_id, -1);
  EXPECT_THAT(result.rows[0].logprobs, IsEmpty());
  EXPECT_EQ(result.rows[1].token_id, 1002);
  // The plan that was on its way has a row of both.
  engine::StepPlan next = plan();
  next.rows = {row_of(1, 1, 1, true), row_of(2, 2, 1, true)};
  ASSERT_TRUE(executor_.begin(next));
  EXPECT_THAT(last_row(0).token_ids, ElementsAre(model::kTokenInstead));
  EXPECT_EQ(last_row(0).pending_row, -1);
  ASSERT_EQ(last_row(0).counts.size(), 2u);
  EXPECT_EQ(last_row(0).counts[0].token_id, model::kTokenInstead) << "as where the model takes it by itself";
  EXPECT_THAT(last_row(1).token_ids, ElementsAre(1002));
  EXPECT_EQ(executor_.finish().value().rows[1].token_id, 1003);
}

TEST_F(StepExecutorTest, SaysWhetherARowWithoutATokenWasAllowedAny) {
  model_.no_token_at = 1;
  engine::StepPlan both = first_plan(start_of(1, {7}));
  both.starts[0].sampling.allowed_token_ids = {5};
  both.starts[0].sampling.bad_words = {{5}};
  both.starts.push_back(start_of(2, {6}));
  both.starts[1].sampling.allowed_token_ids = {5, 6};
  both.starts[1].sampling.bad_words = {{5}};
  both.blocks.push_back(blocks_of(2, {4}));
  both.rows.push_back(row_of(2, 0, 1, true));
  ASSERT_TRUE(executor_.begin(both));
  const auto result = executor_.finish().value();
  EXPECT_EQ(result.rows[0].token_id, engine::kAllForbidden);
  EXPECT_EQ(result.rows[1].token_id, engine::kNoToken);
}

TEST_F(StepExecutorTest, PassesSlotAndSamplingOn) {
  auto start = start_of(1, {7});
  start.slot = SlotId(1);
  start.sampling.temperature = 0.5F;
  start.sampling.top_k = 3;
  start.sampling.seed = 99;
  ASSERT_TRUE(executor_.begin(first_plan(start)));
  EXPECT_EQ(last_row().slot, 1);
  EXPECT_EQ(last_row().sampling.temperature, 0.5F);
  EXPECT_EQ(last_row().sampling.top_k, 3);
  EXPECT_EQ(last_row().sampling.seed, 99u);
}

TEST_F(StepExecutorTest, RefusesPlansThatContradictWhatCameBefore) {
  EXPECT_THAT(refusal(decode(5, 0)), HasSubstr("sequence 5, which is not here"));
  engine::StepPlan stray = plan();
  stray.blocks = {blocks_of(5, {0})};
  EXPECT_THAT(refusal(stray), HasSubstr("blocks for sequence 5"));
  EXPECT_THAT(refusal(first_plan(start_of(1, {}))), HasSubstr("starts with 0 tokens"));
  EXPECT_THAT(refusal(first_plan(start_of(1, {1}, 2))), HasSubstr("2 of them prompt"));
  EXPECT_THAT(refusal(first_plan(start_of(1, {1, -1}))), HasSubstr("a token that is none"));
  auto slot = start_of(1, {1});
  slot.slot = SlotId(2);
  EXPECT_THAT(refusal(first_plan(slot)), HasSubstr("adapter slot 2 of 2"));
  engine::StepPlan block = first_plan(start_of(1, {1}));
  block.blocks = {blocks_of(1, {8})};
  EXPECT_THAT(refusal(block), HasSubstr("block 8 of 8"));
  engine::StepPlan far = first_plan(start_of(1, {1}));
  far.rows = {row_of(1, 0, 2, false)};
  EXPECT_THAT(refusal(far), HasSubstr("which has 1 tokens"));
  engine::StepPlan twice = first_plan(start_of(1, {1}));
  twice.rows.push_back(twice.rows[0]);
  EXPECT_THAT(refusal(twice), HasSubstr("two rows of sequence 1"));
  engine::StepPlan early = first_plan(start_of(1, {1, 2}));
  early.rows = {row_of(1, 0, 1, true)};
  EXPECT_THAT(refusal(early), HasSubstr("which has 2 tokens"));
  engine::StepPlan unhoused = first_plan(start_of(1, {1, 2, 3, 4, 5}));
  unhoused.blocks = {blocks_of(1, {0})};
  EXPECT_THAT(refusal(unhoused), HasSubstr("which has 1 blocks"));
}

TEST_F(StepExecutorTest, LetsTheErrorOfALostPeerThrough) {
  model_.lost_peer = true;
  EXPECT_THROW((void)executor_.begin(first_plan(start_of(1, {7}))), comm::CollectiveError);
}

}  // namespace
}  // namespace lorikeet::actors
