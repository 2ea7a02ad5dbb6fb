#include "kernels/sampling/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

#include "kernels/sampling/philox.h"
#include "tests/kernels/base/random_data.h"
#include "tests/tolerance.h"

namespace lorikeet::kernels {
namespace {

TEST(Philox, GivesThePublishedKnownAnswers) {  // Random123's kat_vectors, philox4x32 of 10 rounds
  const PhiloxBlock zero = philox4x32_10({{0, 0, 0, 0}}, 0, 0);
  EXPECT_EQ(zero.word[0], 0x6627e8d5u);
  EXPECT_EQ(zero.word[1], 0xe169c58du);
  EXPECT_EQ(zero.word[2], 0xbc57ac4cu);
  EXPECT_EQ(zero.word[3], 0x9b00dbd8u);
  const uint32_t ones = 0xffffffffu;
  EXPECT_EQ(philox4x32_10({{ones, ones, ones, ones}}, ones, ones).word[0], 0x408f276du);
}

TEST(Philox, GivesTheTokensOfARowTheSameBitsWherePartsAreMadeOnce) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 1000; i++) {
    const uint64_t seed = i < 3 ? static_cast<uint64_t>(i) : random();
    const auto position = static_cast<int32_t>(random() >> 33);
    const RowNoise noise(seed, position);
    for (int32_t token = 0; token < 8; token++) {
      const int32_t id = token < 4 ? token : static_cast<int32_t>(random() >> 33);
      ASSERT_EQ(noise.bits(id), noise_bits(seed, position, id)) << seed << ", " << position << ", " << id;
    }
  }
}

TEST(BestToken, TakesTheLowerIdOfEqualLogitsAndNeverWhatIsNotANumber) {
  const std::vector<float> logits = {NAN, 1, 3, 3, -INFINITY};
  DrawParameters greedy;
  greedy.temperature = 0;
  EXPECT_EQ(best_token_cpu(logits.data(), 5, 100, greedy).token_id, 102);
}

TEST(Draw, GivesNoTokenThroughFiltersWhereTheBestIsNotFinite) {
  DrawParameters draw;
  for (const int filter : {0, 1, 2}) {
    draw.top_k = filter == 0 ? 2 : 0;
    draw.top_p = filter == 1 ? 0.5F : 1;
    draw.min_p = filter == 2 ? 0.1F : 0;
    for (const auto& logits : {std::vector<float>{NAN, NAN, NAN}, {-INFINITY, NAN, -INFINITY}, {1, INFINITY, 2}}) {
      EXPECT_EQ(draw_filtered_cpu(logits.data(), 3, draw), -1) << "filter " << filter << ", " << logits[1];
    }
    const std::vector<float> one = {NAN, 2, -INFINITY};
    EXPECT_EQ(draw_filtered_cpu(one.data(), 3, draw), 1) << "filter " << filter;
  }
}

TEST(BestToken, IsTheSameWhetherTheVocabularyIsCutOrWhole) {
  std::mt19937 random(1);
  const auto logits = tests::random_floats(257, random, 3);
  for (int position = 0; position < 50; ++position) {
    DrawParameters draw;
    draw.seed = 99;
    draw.position = position;
    const ScoredToken whole = best_token_cpu(logits.data(), 257, 0, draw);
    const ScoredToken left = best_token_cpu(logits.data(), 129, 0, draw);
    const ScoredToken right = best_token_cpu(logits.data() + 129, 128, 129, draw);
    EXPECT_EQ((left.better_than(right) ? left : right).token_id, whole.token_id);
    DrawParameters loose = draw;  // filters that drop nothing draw the same token
    loose.top_k = 257;
    EXPECT_EQ(draw_filtered_cpu(logits.data(), 257, loose), whole.token_id);
  }
}

TEST(Draw, FollowsTheProbabilitiesOfTheSoftmax) {
  const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  std::map<int32_t, int> counts;
  const int draws = 20000;
  for (int position = 0; position < draws; ++position) {
    DrawParameters draw;
    draw.seed = 5;
    draw.position = position;
    ++counts[best_token_cpu(logits.data(), 3, 0, draw).token_id];
  }
  EXPECT_NEAR(counts[0], draws * 0.5, draws * 0.02);
  EXPECT_NEAR(counts[1], draws * 0.3, draws * 0.02);
  EXPECT_NEAR(counts[2], draws * 0.2, draws * 0.02);
}

std::set<int32_t> tokens_drawn(const std::vector<float>& logits, DrawParameters draw) {
  std::set<int32_t> tokens;
  for (draw.position = 0; draw.position < 3000; ++draw.position) {
    tokens.insert(draw_filtered_cpu(logits.data(), static_cast<int32_t>(logits.size()), draw));
  }
  return tokens;
}

TEST(Draw, KeepsWhatTheFiltersDefine) {
  const std::vector<float> logits = {std::log(0.1F), std::log(0.4F), std::log(0.2F), std::log(0.2F), std::log(0.1F)};
  DrawParameters draw;
  draw.seed = 3;
  draw.top_k = 2;  // the second best is tied with a third, which stays
  EXPECT_EQ(tokens_drawn(logits, draw), (std::set<int32_t>{1, 2, 3}));
  draw.top_k = 0;
  draw.top_p = 0.7F;  // ascending: 0.1 + 0.1 are at most 0.3, the next 0.2 is not
  EXPECT_EQ(tokens_drawn(logits, draw), (std::set<int32_t>{1, 2, 3}));
  draw.top_p = 1e-6F;
  EXPECT_EQ(tokens_drawn(logits, draw), (std::set<int32_t>{1}));
  draw.top_p = 1;
  draw.min_p = 0.45F;
  EXPECT_EQ(tokens_drawn(logits, draw), (std::set<int32_t>{1, 2, 3}));
  draw.min_p = 0.55F;
  EXPECT_EQ(tokens_drawn(logits, draw), (std::set<int32_t>{1}));
}

TEST(Penalties, FollowTheDefinitionsOfVllm) {
  PenaltyParameters penalty;
  penalty.repetition = 2;
  EXPECT_FLOAT_EQ(penalized_logit_cpu(3, penalty, 0), 1.5F);
  EXPECT_FLOAT_EQ(penalized_logit_cpu(-3, penalty, 0), -6);
  penalty.repetition = 1;
  penalty.presence = 0.5F;
  penalty.frequency = 0.25F;
  EXPECT_FLOAT_EQ(penalized_logit_cpu(3, penalty, 0), 3);  // prompt tokens are not counted
  EXPECT_FLOAT_EQ(penalized_logit_cpu(3, penalty, 2), 2);
}

TEST(LogNormalizer, AgreesWithFloat64WhateverTheCut) {
  std::mt19937 random(6);
  const auto logits = tests::random_floats(1000, random, 10);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  const LogitMass whole = logit_mass_cpu(logits.data(), 1000);
  EXPECT_NEAR(log_normalizer_cpu(&whole, 1), std::log(sum), tests::kFloat32Tolerance * 50);
  const LogitMass parts[] = {logit_mass_cpu(logits.data(), 400), logit_mass_cpu(logits.data() + 400, 0),
                             logit_mass_cpu(logits.data() + 400, 600)};
  EXPECT_NEAR(log_normalizer_cpu(parts, 3), std::log(sum), tests::kFloat32Tolerance * 50);
}

TEST(TopTokens, AreTheBestWithTiesToTheLowerId) {
  const std::vector<float> logits = {1, 5, 3, 5, 4};
  const auto top = top_tokens_cpu(logits.data(), 5, 10, 3);
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[0].token_id, 11);
  EXPECT_EQ(top[1].token_id, 13);
  EXPECT_EQ(top[2].token_id, 14);
  EXPECT_EQ(top_tokens_cpu(logits.data(), 2, 0, 3).size(), 2u);
}

}  // namespace
}  // namespace lorikeet::kernels
