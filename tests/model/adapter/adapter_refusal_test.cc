// What is refused of an adapter's files, and in which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "model/adapter/adapter.h"
#include "tests/model/adapter/adapter_base.h"

namespace lorikeet::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using tests::SyntheticAdapter;

TEST(Adapter, RefusesModulesThatMatchNothingWithNamesAndCounts) {
  SyntheticAdapter files;
  fill(files);
  files.config["target_modules"] = {"q_proj", "down_proj", "query_key_value"};
  for (int layer = 0; layer < 6; ++layer) {
    files.add_pair("model.layers." + std::to_string(layer) + ".attention.query_key_value", 4, 64, 64);
  }
  EXPECT_THAT(error_of(files),
              AllOf(HasSubstr("6 of 8 adapted modules match nothing in Qwen2ForCausalLM with 3 layers"),
                    HasSubstr("model.layers.0.attention.query_key_value"), HasSubstr("and 2 more")));

  SyntheticAdapter deep;
  fill(deep);
  deep.add_pair(module_of(3, Projection::q), 4, 64, 64);
  EXPECT_THAT(error_of(deep), HasSubstr("1 of 3 adapted modules match nothing"));
}

TEST(Adapter, RefusesTensorsThatAreNoPartOfALora) {
  SyntheticAdapter files;
  fill(files);
  files.add_vector(module_of(1, Projection::q) + ".lora_B.bias", 64);
  files.add_matrix("model.layers.1.self_attn.q_proj.weight", 64, 64);
  EXPECT_THAT(error_of(files), HasSubstr("2 tensors are no part of a LoRA adapter"));

  SyntheticAdapter prefix;
  fill(prefix);
  prefix.tensors.add("model.layers.0.self_attn.q_proj.lora_E.weight", "F32", {1}, std::vector<float>{1});
  EXPECT_THAT(error_of(prefix), HasSubstr("1 tensors are no part of a LoRA adapter"));
}

// What the configuration says was trained beside the LoRA counts where there are tensors of it.
TEST(Adapter, IsServedWhereNothingWasSavedBesideIt) {
  struct Case {
    const char* key;
    nlohmann::json value;
    const char* tensor;
    const char* reason;
  };
  for (const Case& c : std::vector<Case>{
           {"bias", "all", "base_model.model.model.layers.1.self_attn.q_proj.base_layer.bias", "trained biases"},
           {"lora_bias", true, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.bias", "biases of lora_B"},
           {"modules_to_save", {"norm"}, "base_model.model.model.norm.weight", "whole modules"}}) {
    SyntheticAdapter files;
    fill(files);
    files.config[c.key] = c.value;
    EXPECT_EQ(error_of(files), "") << c.key;
    files.tensors.add(c.tensor, "F32", {64}, std::vector<float>(64, 1));
    EXPECT_THAT(error_of(files), AllOf(HasSubstr("1 tensors are no part of a LoRA adapter"), HasSubstr(c.reason)));
  }
}

TEST(Adapter, RefusesSeveralAdaptersInOneFileByTheirNames) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"q_proj"});
  files.add_matrix(module_of(1, Projection::q) + ".lora_A.default.weight", 4, 64);
  files.add_matrix(module_of(1, Projection::q) + ".lora_B.default.weight", 64, 4);
  files.add_matrix(module_of(1, Projection::q) + ".lora_A.second.weight", 4, 64);
  files.add_matrix(module_of(1, Projection::q) + ".lora_B.second.weight", 64, 4);
  EXPECT_THAT(error_of(files), HasSubstr("tensors of several adapters in one file (named default, second)"));

  SyntheticAdapter twice;
  fill(twice);
  twice.tensors.add(module_of(1, Projection::q) + ".lora_A.weight", "F32", {4, 64}, std::vector<float>(256, 1));
  EXPECT_THAT(error_of(twice), HasSubstr("there is a second tensor for the same place"));
}

// Their sentences are lines of a log and of a terminal.
TEST(Adapter, IsRefusedInOneLineWithoutControlCharactersWhateverItsNamesHold) {
  const std::string evil = "x\n{\"event\":\"forged\"}\n\x1b[2J\xC2\x9B";
  const std::string quoted = nlohmann::json(evil).dump(), in_header = quoted.substr(1, quoted.size() - 2);
  const auto expect_line = [](const SyntheticAdapter& files, const char* what) {
    const std::string said = error_of(files);
    EXPECT_THAT(said, HasSubstr(what));
    EXPECT_THAT(said, HasSubstr("x?{\"event\":\"forged\"}??[2J?"));
    for (const char c : {'\n', '\x1b', '\xC2'}) EXPECT_EQ(said.find(c), std::string::npos) << said;
  };
  SyntheticAdapter strange;
  fill(strange);
  strange.tensors.add(in_header, "F32", {1}, std::vector<float>{1});
  expect_line(strange, "are no part of a LoRA adapter");

  SyntheticAdapter unmatched;
  fill(unmatched);
  unmatched.add_pair(in_header, 4, 64, 64);
  expect_line(unmatched, "adapted modules match nothing");

  SyntheticAdapter several;
  fill(several);
  several.tensors.add("base_model.model." + module_of(1, Projection::q) + ".lora_A." + in_header + ".weight", "F32",
                      {4, 64}, std::vector<float>(256, 1));
  expect_line(several, "of several adapters in one file");

  SyntheticAdapter expression;
  fill(expression);
  expression.config["rank_pattern"] = {{evil, 0}};
  expect_line(expression, "rank_pattern");
  expression.config["rank_pattern"] = {{evil + "(", 4}};
  expect_line(expression, "is not a regular expression");
}

TEST(Adapter, RefusesAWithoutBAndBWithoutA) {
  SyntheticAdapter files;
  fill(files);
  files.tensors.remove("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight");
  EXPECT_THAT(error_of(files),
              HasSubstr("1 of 2 modules lack lora_A or lora_B: model.layers.1.self_attn.q_proj (no B)"));
  files.tensors.remove("base_model.model." + module_of(1, Projection::down) + ".lora_A.weight");
  EXPECT_THAT(error_of(files), AllOf(HasSubstr("2 of 2"), HasSubstr("down_proj (no A)")));
}

TEST(Adapter, SaysOfItsOnlyModuleThatItIsTheOnlyOne) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"q_proj"});
  files.add_matrix(module_of(1, Projection::q) + ".lora_A.weight", 4, 64);
  EXPECT_THAT(error_of(files), HasSubstr(": its only module is found to lack lora_A or lora_B: "));
  files.add_matrix(module_of(1, Projection::q) + ".lora_B.weight", 64, 4);
  files.config["target_modules"] = {"k_proj"};
  EXPECT_THAT(error_of(files),
              HasSubstr(": its only module has tensors, yet adapter_config.json does not target it: "));
}

TEST(Adapter, RefusesTensorsThatTheConfigurationDoesNotTarget) {
  SyntheticAdapter files;
  fill(files);
  files.config["target_modules"] = {"q_proj"};
  EXPECT_THAT(error_of(files), HasSubstr("1 of 2 modules have tensors, yet adapter_config.json does not target them: "
                                         "model.layers.1.mlp.down_proj"));
  files.config["target_modules"] = {"q_proj", "down_proj"};
  files.config["layers_to_transform"] = {0};
  EXPECT_THAT(error_of(files), HasSubstr("2 of 2 modules have tensors"));
  files.config["layers_to_transform"] = {1};
  EXPECT_EQ(error_of(files), "");
}

TEST(Adapter, RefusesAnAdapterWithNoTensors) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"q_proj"});
  EXPECT_THAT(error_of(files), HasSubstr("holds no LoRA tensors"));
}

TEST(Adapter, RefusesShapesOfAnotherBase) {
  SyntheticAdapter files;
  files.config = tests::plain_adapter_config(4, 8, {"q_proj"});
  files.add_pair(module_of(1, Projection::q), 4, 128, 64);
  EXPECT_THAT(error_of(files),
              HasSubstr("q_proj.lora_A.weight has shape [4, 128], the base and adapter_config.json call for [4, 64]"));
  SyntheticAdapter rank;
  rank.config = tests::plain_adapter_config(8, 8, {"q_proj"});
  rank.add_pair(module_of(1, Projection::q), 4, 64, 64);
  EXPECT_THAT(error_of(rank),
              HasSubstr("q_proj.lora_A.weight has shape [4, 64], the base and adapter_config.json call for [8, 64]"));
  SyntheticAdapter b;
  b.config = tests::plain_adapter_config(4, 8, {"q_proj"});
  b.add_matrix(module_of(1, Projection::q) + ".lora_A.weight", 4, 64);
  b.add_matrix(module_of(1, Projection::q) + ".lora_B.weight", 4, 64);
  EXPECT_THAT(error_of(b), HasSubstr("lora_B.weight has shape [4, 64]"));
}

TEST(Adapter, RefusesValuesThatAreNotFinite) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    SyntheticAdapter files;
    fill(files);
    files.tensors.remove("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight");
    std::vector<float> b(64 * 4, 0);
    b[9] = bad;
    files.tensors.add("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight", "F32", {64, 4}, b);
    EXPECT_THAT(error_of(files), HasSubstr("q_proj.lora_B.weight: element 9 is not finite"));
  }
}

// Every tensor of an adapter, not some.
TEST(Adapter, RefusesValuesThatAreNotFiniteInAnyTensor) {
  SyntheticAdapter files;
  fill(files);
  files.config["use_dora"] = true;
  files.config["target_modules"] = {"q_proj", "down_proj", "lm_head", "embed_tokens"};
  const std::vector<std::pair<std::string, std::vector<int64_t>>> tensors = {
      {module_of(1, Projection::q) + ".lora_A.weight", {4, 64}},
      {module_of(1, Projection::q) + ".lora_B.weight", {64, 4}},
      {module_of(1, Projection::down) + ".lora_A.weight", {4, 96}},
      {module_of(1, Projection::down) + ".lora_B.weight", {64, 4}},
      {module_of(1, Projection::q) + ".lora_magnitude_vector", {64}},
      {module_of(1, Projection::down) + ".lora_magnitude_vector", {64}}};
  const auto write = [&](const std::string& bad, const char* dtype, uint16_t value) {
    for (const auto& [name, shape] : tensors) {
      int64_t count = 1;
      for (const int64_t size : shape) count *= size;
      std::vector<uint16_t> values(static_cast<size_t>(count), 0x3c00);
      if (name == bad) values.back() = value;
      files.tensors.remove("base_model.model." + name);
      files.tensors.add("base_model.model." + name, dtype, shape, values);
    }
    return error_of(files);
  };
  EXPECT_EQ(write("", "F16", 0), "");
  for (const auto& [name, shape] : tensors) {
    EXPECT_THAT(write(name, "F16", 0x7e00), AllOf(HasSubstr(name), HasSubstr("is not finite")));
    EXPECT_THAT(write(name, "BF16", 0xff80), AllOf(HasSubstr(name), HasSubstr("is not finite")));
  }
}

TEST(Adapter, RefusesTypesThatAreNoFloats) {
  SyntheticAdapter files;
  fill(files);
  files.tensors.remove("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight");
  files.tensors.add("base_model.model." + module_of(1, Projection::q) + ".lora_B.weight", "I8", {64, 4},
                    std::vector<int8_t>(256, 1));
  EXPECT_THAT(error_of(files), HasSubstr("is I8, expected F32, F16 or BF16"));
}

TEST(Adapter, RefusesDirectoriesThatHoldNone) {
  tests::TempDir dir;
  const auto error = [&] { return read_adapter(dir.path(), config_of()).error().message; };
  EXPECT_THAT(read_adapter(dir / "none", config_of()).error().message, HasSubstr("no such directory"));
  EXPECT_THAT(error(), HasSubstr("not an adapter: there is no adapter_config.json"));
  tests::write_file(dir / "adapter_config.json", tests::plain_adapter_config(4, 8, {"q_proj"}).dump());
  EXPECT_THAT(error(), HasSubstr("there is no adapter_model.safetensors"));
  tests::write_file(dir / "adapter_model.bin", "x");
  EXPECT_THAT(error(), HasSubstr("adapter_model.bin is pickled and could run code when read"));
  tests::write_file(dir / "adapter_model.safetensors", "short");
  EXPECT_THAT(error(), HasSubstr("too short for a safetensors file"));
}

// Files of holes: what their headers claim is judged before memory is given to it.
TEST(Adapter, OfAbsurdSizeIsRefusedBeforeItIsRead) {
  const auto error = [](const std::string& name, int64_t rows) {
    SyntheticAdapter files;
    fill(files);
    files.write();
    const std::string header = "{\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(rows) +
                               ",1024],\"data_offsets\":[0," + std::to_string(rows * 4096) + "]}}";
    const auto path = files.dir() / "adapter_model.safetensors";
    tests::write_file(path, tests::safetensors_image(header, ""));
    std::filesystem::resize_file(path, 8 + header.size() + static_cast<uint64_t>(rows) * 4096);
    return read_adapter(files.dir(), config_of()).error().message;
  };
  constexpr int64_t kRows = 100'000'000;  // 400 GB
  EXPECT_THAT(error("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", kRows),
              HasSubstr("lack lora_A or lora_B"));
  EXPECT_THAT(error("something", kRows), HasSubstr("no part of a LoRA adapter"));
  EXPECT_THAT(error("base_model.model.lm_head.weight", kRows), HasSubstr("holds no LoRA tensors"));
}

}  // namespace
}  // namespace lorikeet::model
