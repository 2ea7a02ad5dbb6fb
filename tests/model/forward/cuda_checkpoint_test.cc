// Checkpoints with weights of 8 bits on a CUDA device, which serves them as floats, against the CPU's float32 pass.
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "comm/collective/group.h"
#include "model/forward/cuda_model.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kBlocks = 8;
constexpr int32_t kPrompt = 40;

// The best tokens behind every position from kPrompt - 1 on: a prompt, then one id at a time.
std::vector<std::map<int32_t, float>> best_of(RankModel& model, const std::vector<int32_t>& ids, int32_t best) {
  std::vector<int32_t> blocks(kBlocks);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<std::map<int32_t, float>> found;
  for (int32_t start = 0; start < static_cast<int32_t>(ids.size()); start = start == 0 ? kPrompt : start + 1) {
    BatchRow row;
    row.token_ids = std::span<const int32_t>(ids).subspan(static_cast<size_t>(start), start == 0 ? kPrompt : 1);
    row.prompt_size = kPrompt;
    row.start = start;
    row.block_table = blocks;
    row.sample = true;
    row.sampling.temperature = 0;
    row.sampling.logprobs = best;
    model.begin_step({&row, 1});
    std::map<int32_t, float>& tokens = found.emplace_back();
    const std::vector<RowOutput> outputs = model.finish_step();
    for (const TokenProbability& token : outputs.front().logprobs) tokens[token.token_id] = token.logprob;
  }
  return found;
}

struct Case {
  const char* name;
  QuantMethod method;
  bool act_order;
  std::vector<tests::SyntheticOverride> overrides;
};

class EightBitsOnCuda : public tests::OnCuda, public testing::WithParamInterface<Case> {};

TEST_P(EightBitsOnCuda, AgreesWithTheCpu) {
  tests::SyntheticOptions shape;
  shape.method = GetParam().method;
  shape.bits = 8;
  shape.act_order = GetParam().act_order;
  shape.overrides = GetParam().overrides;
  shape.hidden = 256;
  shape.head_dim = 64;
  shape.intermediate = 512;
  shape.vocab = 320;
  const tests::SyntheticCheckpoint checkpoint(shape);
  checkpoint.write();
  checkpoint.write_config();
  const ShardPlan plan = tests::plan_of(checkpoint.dir(), 1);

  RankModelOptions cpu_options;
  cpu_options.num_blocks = kBlocks;
  auto weights = load_rank_weights(checkpoint.dir(), plan, 0);
  ASSERT_TRUE(weights) << weights.error().message;
  const auto cpu = make_cpu_model(*std::move(weights), plan, cpu_options,
                                  std::shared_ptr<comm::Collective>(std::move(comm::make_local_group(1)[0])));
  ASSERT_TRUE(cpu) << cpu.error().message;
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 128;
  options.num_slots = 0;
  const auto cuda = tests::load_rank(checkpoint.dir(), plan, 0, options);
  ASSERT_TRUE(cuda) << cuda.error().message;
  ASSERT_TRUE((*cuda)->start(kBlocks, nullptr));

  std::vector<int32_t> ids(kPrompt + 8);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % 320);
  const auto expected = best_of(**cpu, ids, 20), actual = best_of(**cuda, ids, 3);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    for (const auto& [token, logprob] : actual[i]) {
      ASSERT_EQ(expected[i].count(token), 1U) << "token " << token << " behind step " << i;
      EXPECT_NEAR(logprob, expected[i].at(token), tests::kHalfFormatLogprobTolerance) << "step " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, EightBitsOnCuda,
                         testing::Values(Case{"Gptq", QuantMethod::gptq, false, {}},
                                         Case{"GptqActOrder", QuantMethod::gptq, true, {}},
                                         Case{"CompressedTensors", QuantMethod::compressed_tensors, false, {}},
                                         Case{"GptqBesideFourBits", QuantMethod::gptq, false, {{"up_proj", 4, 32}}}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace lorikeet::model
