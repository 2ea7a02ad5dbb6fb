#include "model/grammar/answer_constraint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>

namespace lorikeet::model {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Thinking = AnswerConstraint::Thinking;

constexpr int32_t kOpen = 60, kClose = 61, kEnd = 62, kVocab = 70;

// Wants 1, 2, 3 and the end.
class Count final : public GrammarState {
 public:
  bool accept(int32_t token) override {
    if (token != next()) return false;
    ++last_;
    return true;
  }
  void fill(std::span<uint32_t> allowed) override {
    std::fill(allowed.begin(), allowed.end(), 0U);
    allowed[static_cast<size_t>(next()) / 32] |= 1U << (next() % 32);
  }

 private:
  int32_t next() const { return last_ < 3 ? last_ + 1 : kEnd; }
  int32_t last_ = 0;
};

std::set<int32_t> ids(std::span<const uint32_t> allowed) {
  std::set<int32_t> set;
  for (int32_t id = 0; id < static_cast<int32_t>(allowed.size()) * 32; ++id) {
    if ((allowed[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) set.insert(id);
  }
  return set;
}

AnswerConstraint::Options options(Thinking thinking, int32_t budget, bool grammar) {
  AnswerConstraint::Options made;
  made.thinking = thinking;
  made.opening_tag = {kOpen};
  made.closing_tag = {kClose};
  made.thinking_budget = budget;
  if (grammar) made.grammar = std::make_unique<Count>();
  made.vocab_size = kVocab;
  return made;
}

TEST(AnswerConstraint, HoldsAnAnswerToItsGrammar) {
  AnswerConstraint constraint(options(Thinking::none, -1, true));
  for (const int32_t token : {1, 2, 3, kEnd}) {
    EXPECT_THAT(ids(constraint.allowed()), ElementsAre(token));
    EXPECT_TRUE(constraint.needs_next_token());
    constraint.accept(token);
  }
}

TEST(AnswerConstraint, LetsReasoningBeAndHoldsWhatComesBehindIt) {
  AnswerConstraint constraint(options(Thinking::open, -1, true));
  for (const int32_t token : {9, 1, 9, kOpen, kClose}) {
    EXPECT_THAT(ids(constraint.allowed()), IsEmpty());
    constraint.accept(token);
  }
  EXPECT_THAT(ids(constraint.allowed()), ElementsAre(1));
}

TEST(AnswerConstraint, AllowsAThoughtBeforeTheAnswerWhereTheModelMayBeginOne) {
  AnswerConstraint thinks(options(Thinking::may, -1, true)), answers(options(Thinking::may, -1, true));
  EXPECT_THAT(ids(thinks.allowed()), ElementsAre(1, kOpen));
  thinks.accept(kOpen);
  EXPECT_THAT(ids(thinks.allowed()), IsEmpty());
  thinks.accept(kClose);
  EXPECT_THAT(ids(thinks.allowed()), ElementsAre(1));
  answers.accept(1);
  EXPECT_THAT(ids(answers.allowed()), ElementsAre(2));
}

TEST(AnswerConstraint, ClosesReasoningWhenItsBudgetIsSpent) {
  AnswerConstraint constraint(options(Thinking::open, 3, false));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(ids(constraint.allowed()), IsEmpty());
    EXPECT_EQ(constraint.needs_next_token(), i == 2) << i;
    constraint.accept(9);
  }
  EXPECT_THAT(ids(constraint.allowed()), ElementsAre(kClose));
  constraint.accept(kClose);
  EXPECT_THAT(ids(constraint.allowed()), IsEmpty());
  EXPECT_FALSE(constraint.needs_next_token());
  AnswerConstraint none(options(Thinking::open, 0, true));
  EXPECT_THAT(ids(none.allowed()), ElementsAre(kClose));
  none.accept(kClose);
  EXPECT_THAT(ids(none.allowed()), ElementsAre(1));
}

TEST(AnswerConstraint, SpellsAClosingTagOfSeveralTokens) {
  auto several = options(Thinking::open, 2, false);
  several.closing_tag = {5, 6, 7};
  AnswerConstraint constraint(std::move(several));
  for (const int32_t token : {9, 5}) {
    EXPECT_THAT(ids(constraint.allowed()), IsEmpty());
    constraint.accept(token);
  }
  for (const int32_t token : {6, 7}) {  // what has begun is finished
    EXPECT_THAT(ids(constraint.allowed()), ElementsAre(token));
    constraint.accept(token);
  }
  EXPECT_THAT(ids(constraint.allowed()), IsEmpty());
}

TEST(AnswerConstraint, IsTheSameWhenTheTokensComeAgain) {
  AnswerConstraint first(options(Thinking::may, 2, true));
  const std::vector<int32_t> tokens = {kOpen, 8, 8, kClose, 1, 2};
  for (const int32_t token : tokens) {
    first.allowed();
    first.accept(token);
  }
  AnswerConstraint again(options(Thinking::may, 2, true));
  for (const int32_t token : tokens) again.accept(token);
  EXPECT_EQ(ids(again.allowed()), ids(first.allowed()));
  EXPECT_THAT(ids(again.allowed()), ElementsAre(3));
}

TEST(AnswerConstraint, IsOverWhereATokenCameThatItDoesNotAllow) {
  AnswerConstraint constraint(options(Thinking::none, -1, true));
  constraint.accept(40);
  EXPECT_THAT(ids(constraint.allowed()), IsEmpty());
  EXPECT_FALSE(constraint.needs_next_token());
}

}  // namespace
}  // namespace lorikeet::model
