// Adapters read matrix by matrix: what comes of them is what comes of those that are read whole.
#include "model/adapter/adapter_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/adapter/adapter_slice.h"
#include "tests/model/adapter/adapter_base.h"

namespace lorikeet::model {
namespace {

using ::testing::HasSubstr;
using tests::SyntheticAdapter;

// The slices of all ranks, and the digest.
struct Slices {
  std::string digest;
  std::vector<std::vector<uint8_t>> bytes;
};

std::vector<AdapterSlice> planned(const Adapter& adapter, const ShardPlan& plan, SliceLayout layout, Slices& to,
                                  std::vector<uint8_t*>& begins) {
  std::vector<AdapterSlice> slices;
  for (int rank = 0; rank < plan.size(); ++rank) {
    slices.push_back(plan_slice(adapter, plan, rank, layout));
    to.bytes.emplace_back(slices.back().bytes);
  }
  for (auto& bytes : to.bytes) begins.push_back(bytes.data());
  return slices;
}

Slices of_whole(const SyntheticAdapter& files, const ShardPlan& plan, SliceLayout layout) {
  const Adapter whole = read(files, plan.config());
  Slices made{whole.digest, {}};
  std::vector<uint8_t*> begins;
  const auto slices = planned(whole, plan, layout, made, begins);
  EXPECT_TRUE(write_slices(whole, plan, slices, begins, 1));
  return made;
}

Slices of_stream(const SyntheticAdapter& files, const ShardPlan& plan, SliceLayout layout, int threads) {
  AdapterFile file = AdapterFile::open(files.dir(), plan.config(), {kMaxLoraRank, {}, threads}).value();
  EXPECT_TRUE(file.can_stream());
  Slices made;
  std::vector<uint8_t*> begins;
  auto slices = planned(file.outline(), plan, layout, made, begins);
  made.digest =
      file.stream([&](const LoraMatrix& matrix) { return write_matrix(matrix, file.outline(), plan, slices, begins); })
          .value();
  for (size_t rank = 0; rank < slices.size(); ++rank) {
    slices[rank].digest = made.digest;
    write_header(slices[rank], begins[rank]);
  }
  return made;
}

void expect_the_same(const SyntheticAdapter& files, const ModelConfig& config, int ranks) {
  const ShardPlan plan = ShardPlan::make(config, ranks).value();
  for (const SliceLayout layout : {SliceLayout::cpu_f32, SliceLayout::cuda_f16, SliceLayout::cuda_bf16}) {
    const Slices whole = of_whole(files, plan, layout);
    for (const int threads : {1, 3}) {
      const Slices streamed = of_stream(files, plan, layout, threads);
      EXPECT_EQ(streamed.digest, whole.digest);
      EXPECT_EQ(streamed.bytes, whole.bytes) << ranks << " ranks, " << threads << " threads";
    }
  }
}

TEST(AdapterFile, StreamsTheSlicesThatTheWholeGives) {
  SyntheticAdapter files;
  fill(files);
  files.write();
  for (const int ranks : {1, 2}) expect_the_same(files, config_of(), ranks);
}

TEST(AdapterFile, StreamsTheEmbeddingAndLmHead) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"embed_tokens", "lm_head"});
  files.add_matrix("model.embed_tokens.lora_embedding_A", 4, 50);
  files.add_matrix("model.embed_tokens.lora_embedding_B", 64, 4);
  files.add_pair("lm_head", 4, 64, 50);
  files.write();
  for (const int ranks : {1, 2}) expect_the_same(files, config_of(), ranks);
}

TEST(AdapterFile, StreamsAFusedPairToEachOfItsProjections) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"c_attn", "w1"});
  files.add_pair("transformer.h.1.attn.c_attn", 4, 64, 192);
  files.add_pair("transformer.h.1.mlp.w1", 4, 64, 96);
  files.write();
  for (const int ranks : {1, 2}) expect_the_same(files, config_of(Architecture::qwen), ranks);
}

TEST(AdapterFile, StreamsNoDoraNoCopiesOfTheBaseAndNoPaddedNeurons) {
  SyntheticAdapter dora;
  fill(dora);
  dora.config["use_dora"] = true;
  dora.add_vector(module_of(1, Projection::q) + ".lora_magnitude_vector", 64);
  dora.add_vector(module_of(1, Projection::down) + ".lora_magnitude_vector", 64);
  SyntheticAdapter copy;
  copy.config = tests::plain_adapter_config(4, 8, {"lm_head"});
  copy.add_pair("lm_head", 4, 64, 50);
  copy.add_matrix("lm_head.weight", 50, 64);
  SyntheticAdapter padded;
  padded.config = tests::plain_adapter_config(4, 8, {"down_proj"});
  padded.add_pair(module_of(1, Projection::down), 4, 80, 64);
  ModelConfig config = config_of();
  config.dir = "/nowhere";  // a checkpoint whose neurons could be looked at
  for (SyntheticAdapter* files : {&dora, &copy, &padded}) {
    files->write();
    const auto file = AdapterFile::open(files->dir(), config);
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_FALSE(file->can_stream());
  }
}

TEST(AdapterFile, GivesTheOutlineBeforeAnyTensorIsRead) {
  SyntheticAdapter files;
  fill(files, 7);
  files.write();
  const ModelConfig config = config_of();
  const AdapterFile file = AdapterFile::open(files.dir(), config).value();
  EXPECT_EQ(file.outline().max_rank, 7);
  EXPECT_EQ(file.outline().digest, "");
  const LoraPair& q = pair_of(file.outline(), 1, Projection::q);
  EXPECT_EQ(q.outputs, 64);
  EXPECT_TRUE(q.a.empty());
  EXPECT_FALSE(file.outline().layers[0][static_cast<size_t>(Projection::q)]);
}

TEST(AdapterFile, StreamsNothingToTheEndThatIsNotFiniteOrThatItsTakerRefuses) {
  SyntheticAdapter files;
  fill(files);
  files.tensors.remove("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight");
  std::vector<float> b(64 * 4, 0);
  b[9] = INFINITY;
  files.tensors.add("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight", "F32", {64, 4}, b);
  files.write();
  const ModelConfig config = config_of();
  AdapterFile file = AdapterFile::open(files.dir(), config).value();
  const auto refused = file.stream([](const LoraMatrix&) { return Result<void>(); });
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("q_proj.lora_B.weight: element 9 is not finite"));
  SyntheticAdapter good;
  fill(good);
  good.write();
  AdapterFile other = AdapterFile::open(good.dir(), config).value();
  const auto full = other.stream(
      [](const LoraMatrix& matrix) -> Result<void> { return matrix.is_b ? fail("no room for B") : Result<void>(); });
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().message, "no room for B");
}

}  // namespace
}  // namespace lorikeet::model
