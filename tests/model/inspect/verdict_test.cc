// `lorikeet inspect` and serving say the same of every checkpoint, in the same words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "model/checkpoint/weights.h"
#include "model/inspect/inspect.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

std::string serving_says(const std::filesystem::path& dir) {
  const auto config = read_model_config(dir);
  if (!config) return config.error().message;
  const auto defaults = read_generation_defaults(dir);
  if (!defaults) return defaults.error().message;
  if (Tokenizer::is_in(dir)) {
    const auto tokenizer = Tokenizer::load(dir);
    if (!tokenizer) return tokenizer.error().message;
  }
  const auto plan = ShardPlan::make(*config, 1);
  if (!plan) return plan.error().message;
  const auto weights = load_rank_weights(dir, *plan, 0);
  return weights ? "" : weights.error().message;
}

std::string inspection_says(const std::filesystem::path& dir) {
  return inspect_checkpoint(dir).refusal.value_or("");
}

// The same with `change` made to a checkpoint; gives what both say.
std::string verdict(const SyntheticOptions& options, const std::function<void(SyntheticCheckpoint&)>& change) {
  SyntheticCheckpoint checkpoint(options);
  change(checkpoint);
  checkpoint.write();
  const std::string served = serving_says(checkpoint.dir());
  EXPECT_EQ(inspection_says(checkpoint.dir()), served);
  return served;
}

std::vector<SyntheticOptions> kinds() {
  std::vector<SyntheticOptions> all;
  for (const auto architecture : {Architecture::qwen2, Architecture::qwen3, Architecture::qwen}) {
    for (const auto method :
         {QuantMethod::none, QuantMethod::gptq, QuantMethod::awq, QuantMethod::compressed_tensors}) {
      SyntheticOptions options;
      options.architecture = architecture;
      options.method = method;
      options.layers = 1;
      options.symmetric = method != QuantMethod::awq;
      if (architecture == Architecture::qwen) options.kv_heads = options.heads;
      all.push_back(options);
    }
  }
  return all;
}

TEST(Verdict, IsTheSameForCheckpointsThatCanBeServed) {
  for (const SyntheticOptions& options : kinds()) {
    EXPECT_EQ(verdict(options, [](SyntheticCheckpoint&) {}), "");
  }
}

// Embedding, head, norms, biases, dense weights, scales of every kind: none is taken unseen.
TEST(Verdict, NamesEveryTensorOfFloatsThatHoldsAValueThatIsNotFinite) {
  for (const SyntheticOptions& options : kinds()) {
    size_t tensors = 0;
    for (const std::string& name : SyntheticCheckpoint(options).tensors().names()) {
      bool is_float = false;
      const std::string said =
          verdict(options, [&](SyntheticCheckpoint& c) { is_float = c.tensors().set_last(name, "F16", 0x7e00); });
      if (!is_float) continue;
      ++tensors;
      EXPECT_THAT(said, AllOf(HasSubstr(name), HasSubstr("is not finite")));
    }
    EXPECT_GE(tensors, 3u + 8u)
        << "embedding, head, final norm; of the layer two norms, a bias, five weights or scales";
  }
}

TEST(Verdict, IsTheSameForWhatIsRefused) {
  const SyntheticOptions gptq;
  SyntheticOptions tied;
  tied.tied = true;
  SyntheticOptions v2;
  v2.method = QuantMethod::gptq_v2;
  struct Case {
    SyntheticOptions options;
    std::function<void(SyntheticCheckpoint&)> change;
    const char* reason;
  };
  const auto halves = [](size_t count) { return std::vector<uint16_t>(count, 0x3c00); };
  for (const Case& c : std::vector<Case>{
           {tied,
            [&](auto& m) {
              m.tensors().add("lm_head.weight", "F16", {80, 64}, halves(80 * 64));
            },
            "differs"},
           {gptq, [&](auto& m) { m.tensors().remove("model.layers.1.mlp.up_proj.scales"); }, "no tensor named"},
           {gptq,
            [&](auto& m) {
              m.tensors().remove("model.layers.1.mlp.down_proj.g_idx");
              m.tensors().add("model.layers.1.mlp.down_proj.g_idx", "I32", {96}, std::vector<int32_t>(96, 3));
            },
            "is of group 3, there are 3 groups"},
           {v2,
            [&](auto& m) {
              m.tensors().remove("model.layers.1.mlp.up_proj.qzeros");
              m.tensors().add("model.layers.1.mlp.up_proj.qzeros", "I32", {2, 12},
                              std::vector<uint32_t>(24, 0x77777777));
            },
            "checkpoint_format is wrong"},
           {gptq, [&](auto& m) { m.tensors().add("model.layers.1.mlp.down_proj.bias", "F16", {64}, halves(64)); },
            "are not zero"},
           {gptq, [&](auto& m) { m.tensors().add("something.weight", "F16", {64}, halves(64)); }, "has no place for"},
           {gptq, [&](auto& m) { m.write_config(R"(, "dual_chunk_attention_config": {"chunk_size": 8})"); },
            "dual chunk attention"},
           {gptq, [&](auto& m) { tests::write_file(m.dir() / "generation_config.json", R"({"top_p": 7})"); },
            "top_p"}}) {
    EXPECT_THAT(verdict(c.options, c.change), HasSubstr(c.reason));
  }
}

// The list of what save_pretrained and the quantisers write beside the weights.
TEST(Verdict, DoesNotHangOnFilesThatAreNotRead) {
  EXPECT_EQ(verdict({},
                    [](SyntheticCheckpoint& c) {
                      for (const char* name :
                           {"README.md", "LICENSE", ".gitattributes", "quant_log.csv", "special_tokens_map.json",
                            "added_tokens.json", "recipe.yaml", "hf_quant_config.json", "configuration_qwen.py",
                            "training_args.bin", "pytorch_model.bin", "chat_template.jinja", "trainer_state.json"}) {
                        tests::write_file(c.dir() / name, "x");
                      }
                    }),
            "");
  // These are.
  for (const char* name : {"config.json", "generation_config.json", "quantize_config.json", "quant_config.json",
                           "quantization_config.json", "model.safetensors.index.json"}) {
    EXPECT_THAT(verdict({}, [&](SyntheticCheckpoint& c) { tests::write_file(c.dir() / name, "x"); }), HasSubstr(name));
  }
}

// Eight bits are served, and said what they cost.
TEST(Verdict, TellsWhatEightBitsCost) {
  SyntheticOptions options;
  options.bits = 8;
  options.overrides = {{"down_proj", 4, 32}};
  EXPECT_EQ(verdict(options, [](SyntheticCheckpoint&) {}), "");
  const SyntheticCheckpoint checkpoint(options);
  const CheckpointReport report = inspect_checkpoint(checkpoint.dir());
  EXPECT_EQ(report.quantised_modules, 14);
  EXPECT_EQ(report.eight_bit_modules, 12);
  EXPECT_EQ(report.eight_bit_weights, 2u * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 2 * 96 * 64));
  EXPECT_THAT(to_table(report), AllOf(HasSubstr("gptq int8"), HasSubstr("12 linear layers, 48.0 KiB"),
                                      HasSubstr("de-quantised to 16 bits where --device is cuda: 96.0 KiB in all")));
  EXPECT_THAT(eight_bit_cost(checkpoint.dir()),
              testing::StartsWith("12 linear layers, 48.0 KiB; de-quantised to 16 bits"));
  EXPECT_EQ(eight_bit_cost(SyntheticCheckpoint({}).dir()), "");
  EXPECT_EQ(eight_bit_cost("/nowhere"), "");
}

// Those of the examples and of the golden tests, served elsewhere, are not refused by inspection.
TEST(Verdict, OfOurOwnCheckpointsIsThatTheyCanBeServed) {
  size_t checkpoints = 0;
  for (const char* root :
       {"/tests/data", "/examples/models", "/../shared/fixtures/formats", "/../shared/fixtures/cases"}) {
    const std::filesystem::path path = std::string(LORIKEET_SOURCE_DIR) + root;
    if (!std::filesystem::exists(path)) continue;     // the last two are not part of the project
    const bool is_case = path.filename() == "cases";  // some of which are to be refused
    for (const auto& item : std::filesystem::recursive_directory_iterator(path)) {
      if (item.path().filename() != "config.json") continue;
      const auto dir = item.path().parent_path();
      if (!std::filesystem::exists(dir / "model.safetensors") &&
          !std::filesystem::exists(dir / "model.safetensors.index.json")) {
        continue;
      }
      ++checkpoints;
      EXPECT_EQ(inspection_says(dir), serving_says(dir)) << dir;
      if (!is_case) EXPECT_EQ(serving_says(dir), "") << dir;
    }
  }
  EXPECT_GT(checkpoints, 0u);
}

}  // namespace
}  // namespace lorikeet::model
