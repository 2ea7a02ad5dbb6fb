#include "actors/rank/draw_rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "model/forward/rank_model.h"

namespace lorikeet::actors {
namespace {

constexpr int32_t kVocab = 40;

// The logits that are numbers, all 0 before, and what was added to them.
std::vector<float> applied(const kernels::TokenConstraint& constraint, int32_t last_token) {
  std::vector<float> logits(kVocab, 0);
  kernels::constrain_logits_cpu(logits.data(), kVocab, 0, constraint, last_token);
  return logits;
}

std::set<int32_t> forbidden(DrawRules& rules, std::vector<int32_t> generated, int32_t pending = -1) {
  const int32_t last = pending >= 0 ? pending : generated.empty() ? 0 : generated.back();
  if (pending >= 0) generated.push_back(model::kPendingToken);
  const std::vector<float> logits = applied(rules.next(generated), last);
  std::set<int32_t> ids;
  for (int32_t id = 0; id < kVocab; ++id) {
    if (std::isnan(logits[static_cast<size_t>(id)])) ids.insert(id);
  }
  return ids;
}

TEST(DrawRules, AreNoneWhereNothingIsAsked) {
  EXPECT_FALSE(DrawRules::make({}).has_value());
  engine::SamplingParams penalised;
  penalised.presence_penalty = 1;
  EXPECT_FALSE(DrawRules::make(penalised).has_value());
}

TEST(DrawRules, KeepEndTokensBackUntilMinTokensAreGenerated) {
  engine::SamplingParams sampling;
  sampling.min_tokens = 2;
  sampling.ids_after_min_tokens = {5, 39};
  DrawRules rules = DrawRules::make(sampling).value();
  EXPECT_EQ(forbidden(rules, {}), (std::set<int32_t>{5, 39}));
  EXPECT_EQ(forbidden(rules, {7}), (std::set<int32_t>{5, 39}));
  EXPECT_EQ(forbidden(rules, {}, 7), (std::set<int32_t>{5, 39})) << "one that is still being drawn counts";
  EXPECT_TRUE(forbidden(rules, {7, 8}).empty());
  EXPECT_TRUE(forbidden(rules, {7}, 8).empty());
}

TEST(DrawRules, AddBiases) {
  engine::SamplingParams sampling;
  sampling.logit_bias = {{3, 2.5F}, {8, -100}};
  DrawRules rules = DrawRules::make(sampling).value();
  const std::vector<float> logits = applied(rules.next({}), 0);
  for (int32_t id = 0; id < kVocab; ++id) {
    EXPECT_EQ(logits[static_cast<size_t>(id)], id == 3 ? 2.5F : id == 8 ? -100.0F : 0.0F) << id;
  }
}

TEST(DrawRules, ForbidAllButTheAllowedTokens) {
  engine::SamplingParams sampling;
  sampling.allowed_token_ids = {0, 31, 32};
  sampling.min_tokens = 1;
  sampling.ids_after_min_tokens = {31};
  DrawRules rules = DrawRules::make(sampling).value();
  EXPECT_EQ(forbidden(rules, {4}).size(), static_cast<size_t>(kVocab) - 3);
  EXPECT_FALSE(forbidden(rules, {4}).contains(32));
  EXPECT_TRUE(forbidden(rules, {}).contains(31)) << "both hold";
}

TEST(DrawRules, ForbidTheLastTokenOfABadWordWhereTheOthersWereGenerated) {
  engine::SamplingParams sampling;
  sampling.bad_words = {{9}, {1, 2}, {1, 2, 3}, {2, 2}};
  DrawRules rules = DrawRules::make(sampling).value();
  const auto expect = [&rules](std::vector<int32_t> generated, std::set<int32_t> ids) {
    ids.insert(9);
    EXPECT_EQ(forbidden(rules, generated), ids);
    if (generated.empty()) return;
    const int32_t last = generated.back();
    generated.pop_back();
    EXPECT_EQ(forbidden(rules, generated, last), ids) << "the same where the last token is still being drawn";
  };
  expect({}, {});
  expect({1}, {2});
  expect({2}, {2});
  expect({1, 2}, {3, 2});
  expect({1, 4}, {});
  expect({4, 1, 2}, {3, 2});
  expect({1, 2, 4}, {});
}

// The definition: a word is forbidden where what was generated and its last token end with it.
TEST(DrawRules, AgreeWithTheDefinitionOnRandomWords) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    engine::SamplingParams sampling;
    for (int word = 0; word < 6; ++word) {
      std::vector<int32_t> ids(1 + random() % 4);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % 3);
      sampling.bad_words.push_back(ids);
    }
    DrawRules rules = DrawRules::make(sampling).value();
    std::vector<int32_t> generated;
    for (int step = 0; step < 6; ++step) {
      std::set<int32_t> expected;
      for (const auto& word : sampling.bad_words) {
        std::vector<int32_t> then = generated;
        then.push_back(word.back());
        if (then.size() >= word.size() && std::equal(word.rbegin(), word.rend(), then.rbegin()))
          expected.insert(word.back());
      }
      EXPECT_EQ(forbidden(rules, generated), expected);
      generated.push_back(static_cast<int32_t>(random() % 3));
    }
  }
}

TEST(DrawRules, AreToldFromConstraintsThatLeaveNoToken) {
  const float never = -INFINITY;
  const std::vector<uint32_t> none(2), two{1U << 3, 1U << 1}, beyond{0, 1U << 8};  // 3 and 33; 40
  const std::vector<kernels::TokenBias> of_three{{3, never, -1}},
      of_both{{3, never, 9}, {33, -100, -1}, {33, never, -1}};
  EXPECT_TRUE(leaves_a_token({}, kVocab));
  EXPECT_FALSE(leaves_a_token({none, {}}, kVocab));
  EXPECT_TRUE(leaves_a_token({two, {}}, kVocab));
  EXPECT_TRUE(leaves_a_token({two, of_three}, kVocab));
  EXPECT_FALSE(leaves_a_token({two, of_both}, kVocab)) << "not, where the token before it happens to be 9";
  EXPECT_FALSE(leaves_a_token({beyond, {}}, kVocab)) << "past the vocabulary";
  EXPECT_TRUE(leaves_a_token({{}, of_both}, kVocab));
  std::vector<kernels::TokenBias> all;
  for (int32_t token = 0; token < kVocab; ++token) all.push_back({token, never, -1});
  EXPECT_FALSE(leaves_a_token({{}, all}, kVocab));
  EXPECT_TRUE(leaves_a_token({{}, all}, kVocab + 1));
  EXPECT_TRUE(leaves_a_token({{}, all}, 0)) << "a vocabulary that nobody knows is larger";
}

}  // namespace
}  // namespace lorikeet::actors
