#include "model/checkpoint/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::model {
namespace {

using testing::HasSubstr;

ModelConfig config_of(int32_t heads, int32_t kv_heads, int32_t intermediate, int32_t group_size) {
  ModelConfig config;
  config.hidden_size = heads * 128;
  config.num_layers = 1;
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  config.head_dim = 128;
  config.intermediate_size = intermediate;
  config.vocab_size = 152064;
  config.quant.method = QuantMethod::gptq;
  config.quant.group_size = group_size;
  return config;
}

std::vector<int32_t> sizes(const ShardPlan& plan) {
  std::vector<int32_t> sizes;
  for (int rank = 0; rank < plan.size(); ++rank) sizes.push_back(plan.shard(rank).intermediate.size());
  return sizes;
}

TEST(ShardPlan, CutsTheFourteenBillionModelsByWholeGroups) {
  struct Case {
    int32_t kv_heads, intermediate;
    int size;
    std::vector<int32_t> groups;
  };
  const std::vector<Case> cases = {
      {40, 13696, 1, {107}},
      {40, 13696, 2, {54, 53}},
      {40, 13696, 4, {27, 27, 27, 26}},
      {40, 13696, 8, {14, 14, 14, 13, 13, 13, 13, 13}},
      {40, 14336, 8, {14, 14, 14, 14, 14, 14, 14, 14}},
      {8, 13824, 2, {54, 54}},
      {8, 13824, 8, {14, 14, 14, 14, 13, 13, 13, 13}},
      {8, 17408, 8, {17, 17, 17, 17, 17, 17, 17, 17}},
  };
  for (const Case& c : cases) {
    const auto plan = ShardPlan::make(config_of(40, c.kv_heads, c.intermediate, 128), c.size);
    ASSERT_TRUE(plan) << plan.error().message;
    std::vector<int32_t> neurons = c.groups;
    for (int32_t& size : neurons) size *= 128;
    EXPECT_EQ(sizes(*plan), neurons) << c.intermediate << " at TP " << c.size;
  }
}

TEST(ShardPlan, GivesEveryRankItsPartWithoutGapOrOverlap) {
  for (const int32_t intermediate : {96, 448, 640, 4096, 13696, 13824}) {
    for (const int32_t group : {-1, 16, 32, 64, 128, 100}) {
      for (const int size : {1, 2, 4, 8}) {
        const auto plan = ShardPlan::make(config_of(8, 2, intermediate, group), size);
        ASSERT_TRUE(plan) << plan.error().message;
        int32_t heads = 0, neurons = 0, rows = 0;
        for (int rank = 0; rank < size; ++rank) {
          const RankShard& shard = plan->shard(rank);
          EXPECT_EQ(shard.heads.begin, heads);
          EXPECT_EQ(shard.intermediate.begin, neurons);
          EXPECT_EQ(shard.vocab.begin, rows);
          EXPECT_GT(shard.intermediate.size(), 0);
          EXPECT_GT(shard.vocab.size(), 0);
          heads = shard.heads.end;
          neurons = shard.intermediate.end;
          rows = shard.vocab.end;
          EXPECT_EQ(plan->outputs(Projection::up, rank), shard.intermediate);
          EXPECT_EQ(plan->outputs(Projection::gate, rank), shard.intermediate);
          EXPECT_EQ(plan->inputs(Projection::down, rank), shard.intermediate);
          EXPECT_EQ(plan->outputs(Projection::q, rank), plan->inputs(Projection::o, rank));
        }
        EXPECT_EQ(heads, 8);
        EXPECT_EQ(neurons, intermediate);
        EXPECT_EQ(rows, 152064);
      }
    }
  }
}

TEST(ShardPlan, ReplicatesKvHeadsSoThatEveryQueryHeadFindsItsOwn) {
  for (const int32_t kv_heads : {1, 2, 4, 8}) {
    for (const int size : {1, 2, 4, 8}) {
      const auto plan = ShardPlan::make(config_of(8, kv_heads, 1024, 128), size);
      ASSERT_TRUE(plan);
      for (int rank = 0; rank < size; ++rank) {
        const RankShard& shard = plan->shard(rank);
        for (int32_t head = shard.heads.begin; head < shard.heads.end; ++head) {
          const int32_t kv = head / (8 / kv_heads);
          EXPECT_LE(shard.kv_heads.begin, kv);
          EXPECT_LT(kv, shard.kv_heads.end);
        }
        EXPECT_EQ(shard.kv_heads.size(), std::max(1, kv_heads / size));
        EXPECT_EQ(plan->outputs(Projection::k, rank), (Range{shard.kv_heads.begin * 128, shard.kv_heads.end * 128}));
      }
    }
  }
}

TEST(ShardPlan, SharesGroupsBetweenRanksWhereThereAreFewerGroupsThanRanks) {
  const auto plan = ShardPlan::make(config_of(8, 2, 384, 128), 4);
  ASSERT_TRUE(plan);
  EXPECT_EQ(sizes(*plan), (std::vector<int32_t>{96, 96, 96, 96}));
}

TEST(ShardPlan, CutsDenseModelsEvenlyWhereItCan) {
  ModelConfig config = config_of(8, 8, 13696, 128);
  config.quant.method = QuantMethod::none;
  EXPECT_EQ(sizes(*ShardPlan::make(config, 2)), (std::vector<int32_t>{6848, 6848}));
  EXPECT_EQ(sizes(*ShardPlan::make(config, 8)), std::vector<int32_t>(8, 1712));
  config.intermediate_size = 101;
  EXPECT_EQ(sizes(*ShardPlan::make(config, 2)), (std::vector<int32_t>{51, 50}));
}

TEST(ShardPlan, RefusesWhatCannotBeCutWithASentence) {
  EXPECT_THAT(ShardPlan::make(config_of(40, 8, 1024, 128), 3).error().message,
              HasSubstr("40 attention heads do not divide by a tensor-parallel size of 3"));
  EXPECT_THAT(ShardPlan::make(config_of(24, 3, 1024, 128), 2).error().message,
              HasSubstr("3 KV heads neither divide by a tensor-parallel size of 2 nor divide it"));
  EXPECT_THAT(ShardPlan::make(config_of(8, 8, 4, 128), 8).error().message,
              HasSubstr("an intermediate size of 4 cannot be cut over 8 ranks"));
  EXPECT_THAT(ShardPlan::make(config_of(8, 8, 1024, 128), 0).error().message, HasSubstr("must be from 1 to"));
  ModelConfig small = config_of(8, 8, 1024, 128);
  small.vocab_size = 5;
  EXPECT_THAT(ShardPlan::make(small, 8).error().message, HasSubstr("a vocabulary of 5 cannot be cut over 8 ranks"));
}

}  // namespace
}  // namespace lorikeet::model
