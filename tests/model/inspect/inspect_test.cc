#include "model/inspect/inspect.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/model/adapter/synthetic_adapter.h"
#include "tests/model/checkpoint/synthetic_checkpoint.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using tests::SyntheticAdapter;
using tests::SyntheticCheckpoint;
using tests::SyntheticOptions;

TEST(Inspect, TellsWhatACheckpointIsAndWhatItCosts) {
  SyntheticOptions options;
  options.method = QuantMethod::gptq;
  options.act_order = true;
  options.symmetric = false;
  const SyntheticCheckpoint checkpoint(options);
  InspectOptions inspect;
  inspect.memories = {1 << 20, 1 << 10};
  inspect.kv_element_bytes = 4;
  const CheckpointReport report = inspect_checkpoint(checkpoint.dir(), inspect);
  EXPECT_FALSE(report.refusal) << *report.refusal;
  EXPECT_TRUE(report.act_order);
  EXPECT_EQ(report.quantised_modules, 14);
  EXPECT_EQ(report.dense_modules, 0);
  ASSERT_EQ(report.sizes.size(), 4u);

  const SizeReport& one = report.sizes[0];
  // Two tables of 80 x 64 halves; a final norm; per layer two norms, 3 biases, and packed linears with three (down) or
  // two groups of 32, each with a half scale and a nibble of zero per output.
  const uint64_t q = 64 * 64 / 2 + 2 * 64 * 2 + 2 * 64 / 2, kv = 32 * 64 / 2 + 2 * 32 * 2 + 2 * 32 / 2;
  const uint64_t up = 96 * 64 / 2 + 2 * 96 * 2 + 2 * 96 / 2, down = 64 * 96 / 2 + 3 * 64 * 2 + 3 * 64 / 2;
  const uint64_t layer = 2 * 64 * 2 + (64 + 32 + 32) * 2 + 2 * q + 2 * kv + 2 * up + down;
  EXPECT_EQ(one.weight_bytes, (std::vector<uint64_t>{2 * 80 * 64 * 2 + 64 * 2 + 2 * layer}));
  EXPECT_EQ(one.kv_bytes_per_token, 2u * 2 * 2 * 16 * 4);
  ASSERT_EQ(one.fits.size(), 2u);
  EXPECT_EQ(one.fits[0].tokens, static_cast<int64_t>(((1u << 20) - one.weight_bytes[0]) / one.kv_bytes_per_token));
  EXPECT_EQ(one.fits[1].tokens, 0);
  EXPECT_EQ(report.sizes[1].neurons, (std::vector<int32_t>{64, 32}));
  EXPECT_LT(report.sizes[1].weight_bytes[1], report.sizes[1].weight_bytes[0]);
  EXPECT_THAT(*report.sizes[3].refusal, HasSubstr("4 attention heads do not divide"));

  const std::string table = to_table(report);
  EXPECT_THAT(table, AllOf(HasSubstr("Qwen2ForCausalLM, 2 layers, hidden 64"), HasSubstr("gptq int4, asymmetric"),
                           HasSubstr("act-order"), HasSubstr("can be served"), HasSubstr("not at TP 8"),
                           HasSubstr("tokens in 1.0 MiB"), HasSubstr("none")));
  const auto json = to_json(report);
  EXPECT_EQ(json["servable"], true);
  EXPECT_EQ(json["quantisation"]["method"], "gptq");
  EXPECT_EQ(json["quantisation"]["groups"]["hidden"], 2);
  EXPECT_EQ(json["quantisation"]["groups"]["attention"], 2);
  EXPECT_EQ(json["quantisation"]["groups"]["mlp"], 3);
  EXPECT_EQ(json["tensor_parallel"][0]["weight_bytes_per_rank"][0], one.weight_bytes[0]);
  EXPECT_EQ(json["tensor_parallel"][3]["reason"], *report.sizes[3].refusal);
}

TEST(Inspect, SeesActOrderWhereSomeModulesAreNotQuantised) {
  SyntheticOptions options;
  options.act_order = true;
  options.dense = {"down_proj", ".0.self_attn.q_proj"};
  const SyntheticCheckpoint checkpoint(options);
  const CheckpointReport report = inspect_checkpoint(checkpoint.dir());
  EXPECT_TRUE(report.act_order);
  EXPECT_EQ(report.quantised_modules, 11);
  EXPECT_EQ(report.dense_modules, 3);

  options.method = QuantMethod::none;
  const SyntheticCheckpoint dense(options);
  EXPECT_FALSE(inspect_checkpoint(dense.dir()).act_order);
  EXPECT_TRUE(to_json(inspect_checkpoint(dense.dir()))["quantisation"]["groups"].is_null());
}

TEST(Inspect, SeesZerosOfTheOtherGptqVersion) {
  SyntheticOptions options;
  options.method = QuantMethod::gptq_v2;
  SyntheticCheckpoint checkpoint(options);
  checkpoint.tensors().remove("model.layers.0.self_attn.q_proj.qzeros");
  checkpoint.tensors().add("model.layers.0.self_attn.q_proj.qzeros", "I32", {2, 8},
                           std::vector<uint32_t>(16, 0x77777777));
  checkpoint.write();
  const CheckpointReport report = inspect_checkpoint(checkpoint.dir());
  ASSERT_TRUE(report.refusal);
  EXPECT_THAT(*report.refusal, HasSubstr("checkpoint_format is wrong"));
}

TEST(Inspect, GivesTheReasonWhyACheckpointIsRefused) {
  tests::TempDir empty;
  const auto none = inspect_checkpoint(empty.path());
  EXPECT_THAT(*none.refusal, HasSubstr("not a checkpoint: there is no config.json"));
  EXPECT_FALSE(none.config);
  EXPECT_THAT(to_table(none), HasSubstr("cannot be served: "));
  EXPECT_EQ(to_json(none)["servable"], false);

  SyntheticCheckpoint checkpoint{SyntheticOptions{}};
  checkpoint.tensors().remove("model.layers.1.mlp.up_proj.scales");
  checkpoint.write();
  const auto broken = inspect_checkpoint(checkpoint.dir());
  EXPECT_THAT(*broken.refusal, HasSubstr("no tensor named model.layers.1.mlp.up_proj.scales"));
  EXPECT_TRUE(broken.config);
  EXPECT_EQ(to_json(broken)["reason"], *broken.refusal);
  EXPECT_TRUE(broken.sizes.empty());
}

// A whole 14B checkpoint of holes: its headers are real, its weights take no room on the disk.
TEST(Inspect, CountsAFourteenBillionCheckpointFromItsHeaders) {
  tests::TempDir dir;
  constexpr int64_t kHidden = 5120, kLayers = 48, kMlp = 13824, kVocab = 152064, kKv = 1024, kGroup = 128;
  tests::write_file(dir / "config.json", fmt::format(R"({{"architectures": ["Qwen2ForCausalLM"], "hidden_size": {},
    "num_hidden_layers": {}, "num_attention_heads": 40, "num_key_value_heads": 8, "intermediate_size": {}, "vocab_size": {},
    "rope_theta": 1e6, "quantization_config": {{"quant_method": "gptq", "bits": 4, "group_size": {}, "sym": true}}}})",
                                                     kHidden, kLayers, kMlp, kVocab, kGroup));
  std::string header = "{";
  int64_t end = 0;
  const auto add = [&](const std::string& name, const char* dtype, std::initializer_list<int64_t> shape,
                       int64_t element) {
    int64_t bytes = element;
    for (const int64_t size : shape) bytes *= size;
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", name, dtype, fmt::join(shape, ","), end, end + bytes);
    end += bytes;
  };
  const auto linear = [&](const std::string& name, int64_t outputs, int64_t inputs) {
    add(name + ".qweight", "I32", {inputs / 8, outputs}, 4);
    add(name + ".qzeros", "I32", {inputs / kGroup, outputs / 8}, 4);
    add(name + ".scales", "F16", {inputs / kGroup, outputs}, 2);
  };
  add("model.embed_tokens.weight", "F16", {kVocab, kHidden}, 2);
  add("lm_head.weight", "F16", {kVocab, kHidden}, 2);
  add("model.norm.weight", "F16", {kHidden}, 2);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    add(prefix + "input_layernorm.weight", "F16", {kHidden}, 2);
    add(prefix + "post_attention_layernorm.weight", "F16", {kHidden}, 2);
    linear(prefix + "self_attn.q_proj", kHidden, kHidden);
    linear(prefix + "self_attn.k_proj", kKv, kHidden);
    linear(prefix + "self_attn.v_proj", kKv, kHidden);
    linear(prefix + "self_attn.o_proj", kHidden, kHidden);
    linear(prefix + "mlp.gate_proj", kMlp, kHidden);
    linear(prefix + "mlp.up_proj", kMlp, kHidden);
    linear(prefix + "mlp.down_proj", kHidden, kMlp);
    add(prefix + "self_attn.q_proj.bias", "F16", {kHidden}, 2);
    add(prefix + "self_attn.k_proj.bias", "F16", {kKv}, 2);
    add(prefix + "self_attn.v_proj.bias", "F16", {kKv}, 2);
  }
  tests::write_file(dir / "model.safetensors", tests::safetensors_image(header + "}", ""));
  std::filesystem::resize_file(dir / "model.safetensors", 8 + header.size() + 1 + static_cast<uint64_t>(end));

  const CheckpointReport report = inspect_checkpoint(dir.path());
  ASSERT_FALSE(report.refusal) << *report.refusal;
  EXPECT_EQ(report.file_bytes, static_cast<uint64_t>(end));
  EXPECT_EQ(report.sizes[0].weight_bytes, (std::vector<uint64_t>{static_cast<uint64_t>(end)}));
  // 196,608 bytes of keys and values per token in fp16, 8 KV heads over up to 8 ranks; MLPs of 108 groups.
  for (const SizeReport& size : report.sizes) {
    EXPECT_FALSE(size.refusal);
    EXPECT_EQ(size.kv_bytes_per_token, 196608u / static_cast<uint64_t>(size.size));
  }
  EXPECT_EQ(report.sizes[3].neurons, (std::vector<int32_t>{1792, 1792, 1792, 1792, 1664, 1664, 1664, 1664}));
  // Everything but the embedding and what row-parallel layers share is cut.
  const uint64_t table = static_cast<uint64_t>(kVocab) * kHidden * 2;
  const uint64_t cut = static_cast<uint64_t>(end) - table;
  for (const uint64_t bytes : report.sizes[3].weight_bytes) {
    EXPECT_GT(bytes, table + cut / 8 * 95 / 100);
    EXPECT_LT(bytes, table + cut / 8 * 105 / 100);
  }
}

class InspectAdapter : public testing::Test {
 protected:
  InspectAdapter() : base_(SyntheticOptions{}), config_(*read_model_config(base_.dir())) {
    files_.config = tests::plain_adapter_config(4, 8, {"q_proj", "up_proj", "nothing"});
    files_.config["rank_pattern"] = {{"up_proj", 6}};
    for (const char* layer : {"0", "1"}) {
      files_.add_pair(fmt::format("model.layers.{}.self_attn.q_proj", layer), 4, 64, 64);
      files_.add_pair(fmt::format("model.layers.{}.mlp.up_proj", layer), 6, 64, 96);
    }
  }

  SyntheticCheckpoint base_;
  ModelConfig config_;
  SyntheticAdapter files_;
};

TEST_F(InspectAdapter, TellsRanksScalesAndBytesPerRank) {
  files_.write();
  const AdapterReport report = inspect_adapter(files_.dir(), config_);
  EXPECT_FALSE(report.refusal) << *report.refusal;
  EXPECT_EQ(report.digest.size(), 32u);
  ASSERT_EQ(report.modules.size(), 4u);
  EXPECT_EQ(report.modules[0].module, "model.layers.0.mlp.up_proj");
  EXPECT_EQ(report.modules[0].rank, 6);
  EXPECT_FLOAT_EQ(report.modules[0].scale, 8.F / 6);
  EXPECT_EQ(report.modules[0].dtype, "F32");
  EXPECT_TRUE(report.modules[0].matched);
  EXPECT_EQ(report.targets_without_tensors, std::vector<std::string>{"nothing"});
  const uint64_t whole = 2 * 4 * (4 * (64 + 64) + 6 * (64 + 96));
  EXPECT_EQ(report.file_bytes, whole);
  EXPECT_EQ(report.sizes[0].bytes, std::vector<uint64_t>{whole});
  EXPECT_EQ(report.sizes[1].bytes,
            (std::vector<uint64_t>{2 * 4 * (4 * (64 + 32) + 6 * (64 + 64)), 2 * 4 * (4 * (64 + 32) + 6 * (64 + 32))}));
  EXPECT_THAT(to_table(report),
              AllOf(HasSubstr("model.layers.*.mlp.up_proj"), HasSubstr("can be served over this base"),
                    HasSubstr("without tensors"), HasSubstr("1.33333")));
  const auto json = to_json(report);
  EXPECT_EQ(json["servable"], true);
  EXPECT_EQ(json["modules"][0]["rank"], 6);
  EXPECT_EQ(json["modules"][0]["matched"], true);
  EXPECT_EQ(json["matched_modules"], json["modules"].size());
  EXPECT_EQ(json["unmatched_modules"], 0);
  EXPECT_EQ(json["digest"], report.digest);
}

TEST_F(InspectAdapter, CountsTheBytesOfWhateverTypeTheFileHas) {
  struct Row {
    const char* type;
    uint64_t width;
  };
  for (const auto& [type, width] : {Row{"F32", 4}, {"F16", 2}, {"BF16", 2}}) {
    SCOPED_TRACE(type);
    SyntheticAdapter stored;
    stored.config = tests::plain_adapter_config(4, 8, {"q_proj"});
    const std::string module = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
    const std::vector<uint8_t> values(width * 4 * 64, 0x3C);  // small and finite in each of the types
    stored.tensors.add(module + "A.weight", type, {4, 64}, values);
    stored.tensors.add(module + "B.weight", type, {64, 4}, values);
    stored.write();
    const AdapterReport report = inspect_adapter(stored.dir(), config_);
    ASSERT_FALSE(report.refusal) << *report.refusal;
    EXPECT_EQ(report.file_bytes, width * 4 * (64 + 64));
    EXPECT_EQ(report.sizes[0].bytes, std::vector<uint64_t>{width * 4 * (64 + 64)});
    EXPECT_EQ(report.sizes[1].bytes, (std::vector<uint64_t>{width * 4 * (64 + 32), width * 4 * (64 + 32)}));
  }
}

TEST_F(InspectAdapter, ShowsWhatMatchesNothingAndWhyItIsRefused) {
  files_.config["target_modules"] = {"q_proj", "up_proj", "fc1"};
  files_.add_pair("model.layers.0.mlp.fc1", 4, 64, 64);
  files_.write();
  const AdapterReport report = inspect_adapter(files_.dir(), config_);
  EXPECT_THAT(*report.refusal, HasSubstr("1 of 5 adapted modules match nothing"));
  EXPECT_THAT(to_table(report), AllOf(HasSubstr("no such module"), HasSubstr("cannot be served: ")));
  EXPECT_EQ(to_json(report)["servable"], false);
}

TEST_F(InspectAdapter, IsReadableWithoutABaseButNotJudged) {
  files_.write();
  const AdapterReport report = inspect_adapter(files_.dir(), std::nullopt);
  EXPECT_FALSE(report.refusal);
  EXPECT_FALSE(report.judged);
  EXPECT_THAT(to_table(report), AllOf(HasSubstr("name the base model"), Not(HasSubstr("no such module"))));
  EXPECT_TRUE(to_json(report)["servable"].is_null());
}

TEST(Inspect, TellsAdaptersFromCheckpoints) {
  tests::TempDir dir;
  EXPECT_EQ(kind_of_directory(dir.path()), DirectoryKind::neither);
  tests::write_file(dir / "config.json", "{}");
  EXPECT_EQ(kind_of_directory(dir.path()), DirectoryKind::checkpoint);
  tests::write_file(dir / "adapter_config.json", "{}");
  EXPECT_EQ(kind_of_directory(dir.path()), DirectoryKind::adapter);
}

}  // namespace
}  // namespace lorikeet::model
