#include "model/forward/step_cost.h"

#include <gtest/gtest.h>

#include "model/config/config.h"

namespace lorikeet::model {
namespace {

ModelConfig qwen2_5_14b() {
  return read_model_config(std::string(LORIKEET_SOURCE_DIR) + "/examples/configs/qwen2.5-14b-int4").value();
}

TEST(StepCost, CountsTheBytesOfA14BModelAsAnyoneWouldByHand) {
  const auto plan = ShardPlan::make(qwen2_5_14b(), 1).value();
  const StepCost cost = step_cost(plan, 0, {});
  // q and o 5120 x 5120, k and v 1024 x 5120, gate, up and down 13824 x 5120; 48 layers, groups of 128.
  const uint64_t values = 48 * (2 * 5120ULL * 5120 + 2 * 1024ULL * 5120 + 3 * 13824ULL * 5120);
  const uint64_t scales = 2 * values / 128;
  const uint64_t norms = 48 * 2 * 5120 * 2;
  EXPECT_EQ(cost.layer_bytes, values / 2 + scales + norms);
  EXPECT_EQ(cost.lm_head_bytes, 152064ULL * 5120 * 2);
  EXPECT_EQ(cost.kv_bytes_per_position, 48ULL * 2 * 8 * 128 * 2);
  EXPECT_DOUBLE_EQ(cost.layer_flops_per_token, 2.0 * static_cast<double>(values));
  EXPECT_EQ(cost.adapter_bytes_per_rank, 48ULL * 2 * (2 * 10240 + 2 * 6144 + 3 * 18944));
}

TEST(StepCost, TheRanksOfAGroupTogetherReadWhatOneRankAloneWould) {
  const ModelConfig config = qwen2_5_14b();
  const StepCost alone = step_cost(ShardPlan::make(config, 1).value(), 0, {});
  const auto plan = ShardPlan::make(config, 4).value();
  StepCost sum;
  for (int rank = 0; rank < 4; ++rank) {
    const StepCost cost = step_cost(plan, rank, {});
    sum.layer_bytes += cost.layer_bytes;
    sum.lm_head_bytes += cost.lm_head_bytes;
    sum.kv_bytes_per_position += cost.kv_bytes_per_position;
    sum.layer_flops_per_token += cost.layer_flops_per_token;
  }
  const uint64_t norms = 48 * 2 * 5120 * 2;
  EXPECT_EQ(sum.layer_bytes, alone.layer_bytes + 3 * norms) << "each rank has the norms";
  EXPECT_EQ(sum.lm_head_bytes, alone.lm_head_bytes);
  EXPECT_EQ(sum.kv_bytes_per_position, alone.kv_bytes_per_position);
  EXPECT_DOUBLE_EQ(sum.layer_flops_per_token, alone.layer_flops_per_token);
}

TEST(StepCost, ADecodeStepReadsEveryContextAndEveryAdapterThatOccurs) {
  StepCost cost;
  cost.layer_bytes = 1000;
  cost.lm_head_bytes = 100;
  cost.kv_bytes_per_position = 10;
  cost.adapter_bytes_per_rank = 7;
  EXPECT_DOUBLE_EQ(cost.decode_bytes(1, 0), 1100);
  EXPECT_DOUBLE_EQ(cost.decode_bytes(3, 50), 1100 + 3 * 50 * 10);
  EXPECT_DOUBLE_EQ(cost.decode_bytes(3, 50, 2, 16), 1100 + 3 * 50 * 10 + 2 * 16 * 7);
}

TEST(StepCost, PromptsInChunksReadTheWeightsOncePerChunk) {
  StepCost cost;
  cost.layer_bytes = 1000;
  cost.kv_bytes_per_position = 1;
  EXPECT_DOUBLE_EQ(cost.prefill_bytes(1, 100, 100), 1000 + 100);
  EXPECT_DOUBLE_EQ(cost.prefill_bytes(1, 100, 50), 2000 + 100);
  EXPECT_DOUBLE_EQ(cost.prefill_bytes(3, 100, 200), 2000 + 300) << "prompts share chunks";
}

TEST(StepCost, EveryTokenOfAPromptMeetsThoseBeforeIt) {
  StepCost cost;
  cost.layer_flops_per_token = 100;
  cost.lm_head_flops_per_row = 10;
  cost.attention_flops_per_pair = 1;
  EXPECT_DOUBLE_EQ(cost.prefill_flops(1, 3), 3 * 100 + 10 + (1 + 2 + 3));
  EXPECT_DOUBLE_EQ(cost.prefill_flops(2, 3), 2 * (3 * 100 + 10 + (1 + 2 + 3)));
  EXPECT_DOUBLE_EQ(cost.decode_flops(2, 5), 2 * (100 + 10 + 5));
}

}  // namespace
}  // namespace lorikeet::model
