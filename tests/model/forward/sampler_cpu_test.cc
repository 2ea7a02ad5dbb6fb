#include "model/forward/sampler_cpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "comm/collective/group.h"

namespace lorikeet::model {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_layers = 1;
  config.num_heads = 4;
  config.num_kv_heads = 4;
  config.head_dim = 8;
  config.intermediate_size = 256;
  config.vocab_size = 12;
  config.max_position_embeddings = 128;
  return config;
}

// What all ranks make of whole rows of logits [rows][vocabulary]; that they agree is checked here.
std::vector<RowOutput> finish(const std::vector<std::vector<float>>& logits, std::vector<RowSampling> sampling,
                              int ranks, const std::vector<kernels::TokenConstraint>& constraints = {}) {
  const ShardPlan plan = ShardPlan::make(small_config(), ranks).value();
  const std::vector<int32_t> token = {1};
  std::vector<BatchRow> rows(logits.size());
  std::vector<LogitsUse> uses(logits.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].token_ids = token;
    rows[i].sample = uses[i].sample = true;
    rows[i].sampling = sampling[i];
    if (!constraints.empty()) rows[i].constraint = constraints[i];
    uses[i].row = i;
  }
  const std::vector<int32_t> pending(rows.size(), -1);
  auto groups = comm::make_local_group(ranks);
  std::vector<std::vector<RowOutput>> outputs(static_cast<size_t>(ranks), std::vector<RowOutput>(rows.size()));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const Range vocab = plan.shard(rank).vocab;
      std::vector<float> part;
      for (const auto& row : logits) part.insert(part.end(), row.begin() + vocab.begin, row.begin() + vocab.end);
      kernels::ThreadPool pool(1);
      finish_rows_cpu(rows, uses, pending, part, plan, *groups[static_cast<size_t>(rank)], pool,
                      outputs[static_cast<size_t>(rank)]);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& other : outputs) {
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(other[i].token_id, outputs[0][i].token_id) << "row " << i;
  }
  return outputs[0];
}

std::vector<float> row_with(std::vector<std::pair<size_t, float>> values, float others) {
  std::vector<float> row(12, others);
  for (const auto& [at, value] : values) row[at] = value;
  return row;
}

// Greedy, drawn, and drawn through each filter.
std::vector<RowSampling> all_ways() {
  std::vector<RowSampling> ways(5);
  ways[0].temperature = 0;
  ways[2].top_k = 3;
  ways[3].top_p = 0.9F;
  ways[4].min_p = 0.01F;
  for (RowSampling& way : ways) way.logprobs = 2;
  return ways;
}

TEST(SamplerCpu, GivesNoTokenWhereTheBestLogitIsNotFinite) {
  for (const int ranks : {1, 2, 4}) {
    for (const auto& bad : {row_with({}, NAN), row_with({}, -INFINITY), row_with({{7, INFINITY}}, 1),
                            row_with({{0, INFINITY}}, NAN), row_with({{11, -INFINITY}}, NAN)}) {
      for (const RowSampling& way : all_ways()) {
        const auto outputs =
            finish({row_with({{3, 5}}, 0), bad, row_with({{9, 50}}, 0)}, {RowSampling{}, way, way}, ranks);
        EXPECT_EQ(outputs[1].token_id, kNoToken) << ranks << " ranks, " << bad[0] << ", " << bad[7];
        EXPECT_TRUE(outputs[1].logprobs.empty());
        EXPECT_EQ(outputs[2].token_id, 9) << "the neighbour";
        ASSERT_FALSE(outputs[2].logprobs.empty());
        EXPECT_EQ(outputs[2].logprobs[0].token_id, 9);
        EXPECT_TRUE(std::isfinite(outputs[2].logprobs[0].logprob));
      }
    }
  }
}

TEST(SamplerCpu, DrawsFromTheNumbersOfARowThatHasOthers) {
  for (const int ranks : {1, 2, 4}) {
    for (RowSampling way : all_ways()) {
      way.logprobs = -1;
      EXPECT_EQ(finish({row_with({{8, 3}}, NAN)}, {way}, ranks)[0].token_id, 8);
    }
  }
}

// Against the definition: the same draws from logits that have been changed by hand.
TEST(SamplerCpu, DrawsWithinConstraintsAndReportsLogprobsFromBefore) {
  const std::vector<float> logits = {0.5F, 4, 3.5F, -1, 2, 1, 3, 0, 2.5F, -2, 1.5F, 3.2F};
  const std::vector<uint32_t> allowed = {0x9b5};  // tokens 0, 2, 4, 5, 7, 8, 11
  const std::vector<kernels::TokenBias> biases = {
      {2, -INFINITY, 1}, {5, 2.25F, -1}, {8, -1.5F, -1}, {11, -INFINITY, 3}};
  std::vector<float> changed = logits;
  for (const size_t forbidden : {1, 3, 6, 9, 10, 2}) changed[forbidden] = NAN;
  changed[5] += 2.25F;
  changed[8] -= 1.5F;
  for (const int ranks : {1, 2, 4}) {
    for (RowSampling way : all_ways()) {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        way.seed = seed;
        RowSampling quiet = way;
        quiet.logprobs = -1;
        const auto outputs = finish({logits, logits}, {way, way}, ranks, {{allowed, biases}, {}});
        EXPECT_EQ(outputs[0].token_id, finish({changed}, {quiet}, 1)[0].token_id);
        EXPECT_EQ(outputs[1].token_id, finish({logits}, {quiet}, 1)[0].token_id) << "the neighbour";
        ASSERT_GE(outputs[0].logprobs.size(), 2U);
        EXPECT_EQ(outputs[0].logprobs[0].token_id, 1) << "forbidden tokens are still the most probable";
        EXPECT_EQ(outputs[0].logprobs[0].logprob, outputs[1].logprobs[0].logprob);
        const TokenProbability& drawn = outputs[0].logprobs.back();
        if (outputs[0].logprobs.size() == 3) {
          EXPECT_EQ(drawn.token_id, outputs[0].token_id);
          EXPECT_NEAR(drawn.logprob - outputs[0].logprobs[0].logprob, logits[static_cast<size_t>(drawn.token_id)] - 4,
                      1e-5);
        }
      }
    }
  }
}

TEST(SamplerCpu, GivesNoTokenWhereAllAreForbidden) {
  const std::vector<uint32_t> allowed = {1U << 6};
  const std::vector<kernels::TokenBias> biases = {{6, -INFINITY, -1}};
  for (const int ranks : {1, 4}) {
    for (const RowSampling& way : all_ways()) {
      const auto outputs = finish({row_with({{3, 5}}, 0)}, {way}, ranks, {{allowed, biases}});
      EXPECT_EQ(outputs[0].token_id, kNoToken);
      EXPECT_TRUE(outputs[0].logprobs.empty());
    }
  }
}

// Against the definition, over whole rows.
TEST(SamplerCpu, RanksTargetsAndListsTheBestInTheirPlace) {
  const std::vector<std::vector<float>> logits = {row_with({{3, 5}, {4, 7}, {9, 5}}, 1), row_with({{0, -1}}, 2)};
  const std::vector<int32_t> tokens = {1, 2, 3}, targets = {9, 0, -1};
  for (const int ranks : {1, 2, 4}) {
    const ShardPlan plan = ShardPlan::make(small_config(), ranks).value();
    std::vector<BatchRow> rows(1);
    rows[0].token_ids = tokens;
    rows[0].logprob_targets = targets;
    rows[0].sampling.target_top_logprobs = 2;
    std::vector<LogitsUse> uses(2);
    for (int32_t i = 0; i < 2; ++i) uses[static_cast<size_t>(i)] = {0, i, targets[static_cast<size_t>(i)], i, false};
    auto groups = comm::make_local_group(ranks);
    std::vector<std::vector<RowOutput>> outputs(static_cast<size_t>(ranks), std::vector<RowOutput>(1));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        auto& own = outputs[static_cast<size_t>(rank)];
        own[0].target_logprobs.resize(3);
        const Range vocab = plan.shard(rank).vocab;
        std::vector<float> part;
        for (const auto& row : logits) part.insert(part.end(), row.begin() + vocab.begin, row.begin() + vocab.end);
        kernels::ThreadPool pool(1);
        finish_rows_cpu(rows, uses, {-1}, part, plan, *groups[static_cast<size_t>(rank)], pool, own);
      });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& of_rank : outputs) {
      const RowOutput& output = of_rank[0];
      EXPECT_EQ(output.target_ranks, (std::vector<int32_t>{3, 12, 0})) << "equal ones count before it";
      ASSERT_EQ(output.target_best.size(), 3u);
      ASSERT_EQ(output.target_best[0].size(), 2u);
      EXPECT_EQ(output.target_best[0][0].token_id, 4);
      EXPECT_EQ(output.target_best[0][1].token_id, 3);
      EXPECT_EQ(output.target_best[1][0].token_id, 1);
      EXPECT_TRUE(output.target_best[2].empty());
      double mass = 0;
      for (const float x : logits[0]) mass += std::exp(static_cast<double>(x));
      EXPECT_NEAR(output.target_logprobs[0], 5 - std::log(mass), 1e-5);
      EXPECT_NEAR(output.target_best[0][0].logprob, 7 - std::log(mass), 1e-5);
    }
  }
}

}  // namespace
}  // namespace lorikeet::model
