#include "kernels/sampling/token_constraint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lorikeet::kernels {
namespace {

constexpr float kNever = -INFINITY;

TEST(TokenConstraint, LeavesNumbersToAllowedTokensAlone) {
  const std::vector<uint32_t> allowed = {1U << 31, 1U << 0 | 1U << 5};  // tokens 31, 32 and 37
  std::vector<float> logits(70, 2.0F);
  constrain_logits_cpu(logits.data(), 70, 0, {allowed, {}}, 0);
  for (int token = 0; token < 70; ++token) {
    const bool may = token == 31 || token == 32 || token == 37;
    EXPECT_EQ(std::isnan(logits[static_cast<size_t>(token)]), !may) << token;
    if (may) {
      EXPECT_EQ(logits[static_cast<size_t>(token)], 2.0F);
    }
  }
}

TEST(TokenConstraint, AddsTheBiasesOfATokenUpAndForbidsByInfinity) {
  const std::vector<TokenBias> biases = {{1, 2.5F, -1}, {1, -0.5F, -1}, {3, 100, -1}, {3, kNever, -1}, {9, 1, -1}};
  std::vector<float> logits = {0, 1, 2, 3};
  constrain_logits_cpu(logits.data(), 4, 0, {{}, biases}, 0);
  EXPECT_EQ(logits[0], 0);
  EXPECT_EQ(logits[1], 3);
  EXPECT_EQ(logits[2], 2);
  EXPECT_TRUE(std::isnan(logits[3]));
}

TEST(TokenConstraint, AppliesWhatComesAfterATokenOnlyThere) {
  const std::vector<TokenBias> biases = {{1, kNever, 7}, {2, 4, 8}};
  std::vector<float> after_7 = {0, 1, 2}, after_8 = after_7, after_9 = after_7;
  constrain_logits_cpu(after_7.data(), 3, 0, {{}, biases}, 7);
  constrain_logits_cpu(after_8.data(), 3, 0, {{}, biases}, 8);
  constrain_logits_cpu(after_9.data(), 3, 0, {{}, biases}, 9);
  EXPECT_TRUE(std::isnan(after_7[1]));
  EXPECT_EQ(after_7[2], 2);
  EXPECT_EQ(after_8, (std::vector<float>{0, 1, 6}));
  EXPECT_EQ(after_9, (std::vector<float>{0, 1, 2}));
}

TEST(TokenConstraint, ChangesTheSameLogitsWhereTheVocabularyIsCut) {
  const std::vector<uint32_t> allowed = {0x5a5a5a5a, 0xff00ff00, 0x3};
  const std::vector<TokenBias> biases = {{1, 0.5F, -1}, {33, -2, -1}, {41, kNever, -1}, {65, 3, -1}};
  std::vector<float> whole;
  for (int i = 0; i < 90; ++i) whole.push_back(static_cast<float>(i) / 7);
  std::vector<float> parts = whole;
  constrain_logits_cpu(whole.data(), 90, 0, {allowed, biases}, 4);
  constrain_logits_cpu(parts.data(), 34, 0, {allowed, biases}, 4);
  constrain_logits_cpu(parts.data() + 34, 56, 34, {allowed, biases}, 4);
  for (size_t i = 0; i < 90; ++i) {
    EXPECT_EQ(std::isnan(whole[i]), std::isnan(parts[i])) << i;
    if (!std::isnan(whole[i])) {
      EXPECT_EQ(whole[i], parts[i]) << i;
    }
  }
}

}  // namespace
}  // namespace lorikeet::kernels
