// Several answers to one request, and what is known of its prompt before they begin.
#include <gmock/gmock.h>

#include "tests/actors/head/gateway_fixture.h"

namespace lorikeet::actors {
namespace {

using engine::FinishReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(GatewayTest, GivesWhatIsKnownOfThePromptWithTheFirstDeltaWhereThatIsWanted) {
  auto wanting = request("a");
  wanting.prompt_top_logprobs = 1;
  wanting.early_prompt_logprobs = true;
  say(wanting);
  const auto size = heard_->submitted[0]->prompt.size();
  happen({engine::PromptLogprobsEvent{last_id(), 1, std::vector<float>(size - 1, -2), std::vector<int32_t>(size - 1, 4),
                                      std::vector<std::vector<engine::TokenLogprob>>(size - 1, {{9, -0.5F}})}});
  EXPECT_THAT(heard_->answers, IsEmpty());
  happen({token(last_id(), 300)});
  happen({token(last_id(), 300), finish(last_id(), FinishReason::length)});
  const auto deltas = all<comm::Delta>();
  ASSERT_GE(deltas.size(), 2u);
  ASSERT_TRUE(deltas[0].prompt);
  for (const comm::Delta& delta : deltas) EXPECT_EQ(static_cast<size_t>(delta.prompt_tokens), size);
  EXPECT_EQ(deltas[0].prompt->logprobs.size(), size);
  EXPECT_EQ(deltas[0].prompt->logprobs.at(1), -2.0F);
  EXPECT_EQ(deltas[0].prompt->ranks.at(1), 4);
  EXPECT_EQ(deltas[0].prompt->top_logprobs.at(1), (comm::TokenLogprobs{{9, -0.5F}}));
  EXPECT_FALSE(deltas[1].prompt);
  EXPECT_THAT(all<comm::Done>().at(0).prompt_logprobs, IsEmpty());

  wanting.id = "b";
  wanting.max_tokens = 0;
  say(wanting);
  happen({token(last_id(), 300), finish(last_id(), FinishReason::length)});
  EXPECT_TRUE(all<comm::Delta>().back().prompt) << "without a token of its own, too";
  EXPECT_THAT(all<comm::Delta>().back().token_ids, IsEmpty());
  EXPECT_EQ(all<comm::Done>().size(), 2u);
}

TEST_F(GatewayTest, GivesAsManyAnswersAsARequestAsksFor) {
  auto wanting = request("a");
  wanting.n = 3;
  wanting.seed = 7;
  say(wanting);
  ASSERT_EQ(heard_->submitted.size(), 3u);
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(heard_->submitted[i]->sampling.seed, 7 + i);
    EXPECT_EQ(heard_->submitted[i]->prompt, heard_->submitted[0]->prompt);
  }
  happen({token(heard_->submitted[2]->id, 300), finish(heard_->submitted[2]->id, FinishReason::length)});
  EXPECT_EQ(all<comm::Delta>().at(0).index, 2);
  EXPECT_EQ(all<comm::Done>().at(0).index, 2);
  EXPECT_EQ(all<comm::Done>().at(0).id, "a");
  EXPECT_EQ(all<comm::Done>().at(0).seed, 9u);
  say(request("a"));
  EXPECT_EQ(all<comm::Failure>().at(0).id, "duplicate:a") << "two of its answers are still running";
  say(comm::Cancel{"a"});
  ASSERT_EQ(heard_->finished.size(), 2u);
  for (const size_t i : {0, 1}) happen({finish(heard_->submitted[i]->id, FinishReason::abort)});
  EXPECT_EQ(all<comm::Done>().size(), 3u);
  say(request("a"));
  EXPECT_EQ(heard_->submitted.size(), 4u);

  for (const int32_t n : {0, -1, 129}) {
    wanting.id = "wrong";
    wanting.n = n;
    say(wanting);
    EXPECT_THAT(all<comm::Failure>().back().message, HasSubstr("not in 1 .. 128"));
  }
}

TEST_F(GatewayTest, NamesTheFieldThatIsWrong) {
  auto hot = request("a");
  hot.temperature = 3;
  say(hot);
  ASSERT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Failure>()[0].field, "temperature");
  EXPECT_EQ(all<comm::Failure>()[0].message, "temperature is 3, not in 0 .. 2");
}

TEST_F(GatewayTest, EndsAllAnswersToARequestWithOneFailure) {
  auto wanting = request("a");
  wanting.n = 3;
  say(wanting);
  happen({finish(heard_->submitted[0]->id, FinishReason::length),
          engine::FailEvent{heard_->submitted[1]->id, {engine::ErrorCode::no_token, "x"}}});
  EXPECT_EQ(all<comm::Failure>().size(), 1u);
  ASSERT_EQ(heard_->finished.size(), 1u);
  EXPECT_EQ(heard_->finished[0].id, heard_->submitted[2]->id);
  say(request("a"));
  EXPECT_EQ(heard_->submitted.size(), 4u) << "the name is free";
  happen({token(heard_->submitted[2]->id, 300), finish(heard_->submitted[2]->id, FinishReason::abort)});
  EXPECT_EQ(all<comm::Failure>().size(), 1u);
  EXPECT_EQ(all<comm::Done>().size(), 1u);
}

}  // namespace
}  // namespace lorikeet::actors
