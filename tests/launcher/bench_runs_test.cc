#include "launcher/bench_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/config/config.h"
#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PrefillLengths, AreThoseOfTheDefaultsThatFitOrTheLongest) {
  EXPECT_THAT(*prefill_lengths({}, 100'000), ElementsAre(512, 2048, 8192));
  EXPECT_THAT(*prefill_lengths({}, 2048), ElementsAre(512, 2048));
  EXPECT_THAT(*prefill_lengths({}, 511), ElementsAre(511));
  EXPECT_THAT(*prefill_lengths({}, 1), ElementsAre(1));
}

TEST(PrefillLengths, AreRefusedBeforeAnythingIsMeasuredWhereOneThatWasAskedForDoesNotFit) {
  EXPECT_THAT(*prefill_lengths({7, 3}, 7), ElementsAre(7, 3));
  const auto refused = prefill_lengths({7, 8}, 7);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("--input-len 8"));
}

// What `bench adapters` says of flags that the example model's server cannot do; empty where it can.
class AdaptersBench : public ::testing::Test {
 protected:
  AdaptersBench() {
    options_.model = tests::source_path("examples/models/tiny-qwen2-gptq-int4").string();
    config_ = *model::read_model_config(options_.model);
    flags_.input_len = 64;
    flags_.output_len = 32;
    flags_.batch_size = 32;
    flags_.num_adapters = {0, 1, 8};
  }
  std::string refusal() const {
    const auto ok = check_adapters_bench(flags_, options_, config_);
    return ok ? "" : ok.error().message;
  }

  BenchFlags flags_;
  actors::ServerOptions options_;
  model::ModelConfig config_;
};

TEST_F(AdaptersBench, TakesWhatTheServerCanDo) {
  flags_.lora_targets = {"q_proj", "down_proj"};
  flags_.lora_rank = options_.max_lora_rank;
  flags_.input_len = config_.max_position_embeddings - flags_.output_len;
  flags_.batch_size = options_.max_num_queued_reqs - 16;
  EXPECT_EQ(refusal(), "");
}

TEST_F(AdaptersBench, RefusesLayersThatTheModelDoesNotHave) {
  flags_.lora_targets = {"q_proj", "x_proj"};
  EXPECT_EQ(refusal(), "--lora-targets: the model has no linear layer x_proj");
}

TEST_F(AdaptersBench, RefusesMoreAdaptersThanItMakes) {
  flags_.num_adapters = {0, 100'001, 1};
  EXPECT_EQ(refusal(), "--num-adapters 100001: at most 100000 are made");
}

TEST_F(AdaptersBench, RefusesARankThatTheServerWouldRefuse) {
  flags_.lora_rank = 16;
  options_.max_lora_rank = 8;
  EXPECT_EQ(refusal(), "--lora-rank 16: the server takes adapters up to --max-lora-rank 8");
}

TEST_F(AdaptersBench, RefusesAdaptersThatTheHeadHasNoRoomFor) {
  options_.max_cpu_lora_bytes = 1000;
  EXPECT_THAT(refusal(), HasSubstr("--max-cpu-lora-bytes 1000 B: an adapter of rank 16 takes "));
}

TEST_F(AdaptersBench, RefusesSequencesThatTheContextDoesNotHold) {
  options_.max_model_len = 95;
  EXPECT_EQ(refusal(), "--input-len 64 and --output-len 32: a sequence has room for 95 tokens");
}

TEST_F(AdaptersBench, RefusesMoreRequestsThanMayWait) {
  options_.max_num_queued_reqs = 47;
  EXPECT_THAT(refusal(), HasSubstr("--batch-size 32: with 16 requests beside it"));
}

TEST_F(AdaptersBench, RefusesAdaptersOfOthers) {
  options_.lora_modules = {{"kjv", "/adapters/kjv"}};
  EXPECT_THAT(refusal(), HasSubstr("--lora-modules"));
}

}  // namespace
}  // namespace lorikeet::launcher
