#include "actors/wire/kv_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

model::ModelConfig config_with_positions(int32_t positions) {
  model::ModelConfig config;
  config.max_position_embeddings = positions;
  return config;
}

TEST(KvBudget, TakesTheContextOfTheCheckpointUnlessAShorterOneIsWanted) {
  ServerOptions options;
  EXPECT_EQ(context_length(options, config_with_positions(2048)).value(), 2048);
  options.max_model_len = 100;
  EXPECT_EQ(context_length(options, config_with_positions(2048)).value(), 100);
  options.max_model_len = 2049;
  EXPECT_THAT(context_length(options, config_with_positions(2048)).error().message,
              HasSubstr("--max-model-len 2049 is more than the 2048 positions"));
  options.max_model_len = 2;
  EXPECT_EQ(context_length(options, config_with_positions(2048)).value(), 2);
  options.max_model_len = 1;
  EXPECT_THAT(context_length(options, config_with_positions(2048)).error().message, HasSubstr("--max-model-len 1:"));
}

TEST(KvBudget, StretchesTheContextByYarn) {
  auto config = config_with_positions(32768);
  config.yarn = model::YarnScaling{4, 32768};
  EXPECT_EQ(context_length(ServerOptions(), config).value(), 131072);
}

TEST(KvBudget, HoldsNoMoreThanAllSequencesCanFill) {
  ServerOptions options;
  options.block_size = 16;
  options.max_num_seqs = 3;
  EXPECT_EQ(blocks_within(1 << 30, 1 << 10, options, 100).value(), 3 * 7);
  EXPECT_EQ(blocks_within(10 << 10, 1 << 10, options, 100).value(), 10);
}

TEST(KvBudget, RefusesABudgetWithoutABlock) {
  EXPECT_THAT(blocks_within(1000, 1024, ServerOptions(), 100).error().message,
              HasSubstr("1000 bytes of KV cache hold no block of 1024 bytes"));
}

TEST(KvBudget, CountsKeysAndValuesOfTheKvHeadsOfARank) {
  auto config = config_with_positions(64);
  config.hidden_size = 64;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.intermediate_size = 256;
  config.vocab_size = 100;
  const auto plan = model::ShardPlan::make(config, 2).value();
  EXPECT_EQ(cpu_block_bytes(plan, 0, 8), 2u * 3 * 1 * 16 * 8 * sizeof(float));
}

}  // namespace
}  // namespace lorikeet::actors
