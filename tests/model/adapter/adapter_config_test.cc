#include "model/adapter/adapter_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/model/adapter/synthetic_adapter.h"

namespace lorikeet::model {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

constexpr const char* kQ = "model.layers.3.self_attn.q_proj";
constexpr const char* kDown = "model.layers.12.mlp.down_proj";

ordered_json plain() {
  return tests::plain_adapter_config(8, 16, {"q_proj", "down_proj"});
}

AdapterConfig parsed(const ordered_json& json) {
  auto config = AdapterConfig::parse(json.dump(), "adapter_config.json");
  if (!config) throw std::runtime_error(config.error().message);
  return *config;
}

std::string error_of(const ordered_json& json) {
  const auto config = AdapterConfig::parse(json.dump(), "adapter_config.json");
  return config ? "" : config.error().message;
}

ordered_json with(const char* key, const ordered_json& value) {
  ordered_json json = plain();
  json[key] = value;
  return json;
}

TEST(AdapterConfig, GivesRankScaleAndTargets) {
  const AdapterConfig config = parsed(plain());
  EXPECT_EQ(*config.rank_of(kQ), 8);
  EXPECT_FLOAT_EQ(*config.scale_of(kQ), 2);
  EXPECT_TRUE(*config.targets(kQ));
  EXPECT_TRUE(*config.targets(kDown));
  EXPECT_FALSE(*config.targets("model.layers.3.self_attn.k_proj"));
  EXPECT_FALSE(*config.targets("model.layers.3.self_attn.xq_proj"));
  EXPECT_FALSE(config.uses_dora());
}

TEST(AdapterConfig, ScalesByTheRootOfTheRankWithRsLora) {
  ordered_json json = with("use_rslora", true);
  json["rank_pattern"] = {{"down_proj", 12}};
  EXPECT_FLOAT_EQ(*parsed(json).scale_of(kQ), 16 / std::sqrt(8.F));
  EXPECT_FLOAT_EQ(*parsed(json).scale_of(kDown), 16 / std::sqrt(12.F));
}

TEST(AdapterConfig, AppliesTheFirstPatternThatMatchesAsPeftDoes) {
  ordered_json json = plain();
  json["rank_pattern"] = {{"layers\\.3\\.self_attn\\.q_proj", 5}, {"q_proj", 7}, {"[dk]own_proj|up_proj", 9}};
  json["alpha_pattern"] = {{"self_attn.q_proj", 10}, {"model.layers.12.mlp.down_proj", 27.5}};
  const AdapterConfig config = parsed(json);
  EXPECT_EQ(*config.rank_of(kQ), 5);
  EXPECT_EQ(*config.rank_of("model.layers.4.self_attn.q_proj"), 7);
  EXPECT_EQ(*config.rank_of(kDown), 9);
  EXPECT_EQ(*config.rank_of("model.layers.1.self_attn.v_proj"), 8);
  EXPECT_FLOAT_EQ(*config.scale_of(kQ), 2);
  EXPECT_FLOAT_EQ(*config.scale_of(kDown), 27.5F / 9);
  // The order of the file counts, not the alphabet's.
  json["rank_pattern"] = {{"q_proj", 7}, {"layers\\.3\\.self_attn\\.q_proj", 5}};
  EXPECT_EQ(*parsed(json).rank_of(kQ), 7);
  // A pattern matches from the beginning or after a dot, to the end.
  json["rank_pattern"] = {{"proj", 3}, {"self_attn", 4}};
  EXPECT_EQ(*parsed(json).rank_of(kQ), 8);
}

TEST(AdapterConfig, AppliesPatternsToTheNameThatTheFrameworkSawAndThenToTheModels) {
  constexpr const char* kStored = "model.language_model.layers.3.self_attn.q_proj";
  ordered_json json = plain();
  json["rank_pattern"] = {{"model.language_model.layers.3.self_attn.q_proj", 4}};
  json["alpha_pattern"] = {{"^model.layers.3.self_attn.q_proj", 5}, {"^model.language_model.*q_proj", 12}};
  const AdapterConfig config = parsed(json);
  EXPECT_EQ(*config.rank_of(kQ, kStored), 4);
  EXPECT_FLOAT_EQ(*config.scale_of(kQ, kStored), 3);
  EXPECT_EQ(*config.rank_of(kQ), 8);
  EXPECT_FLOAT_EQ(*config.scale_of(kQ), 5.F / 8);
  json["alpha_pattern"] = {{"^model.layers.3.self_attn.q_proj", 5}};
  EXPECT_FLOAT_EQ(*parsed(json).scale_of(kQ, kStored), 5.F / 4);
}

TEST(AdapterConfig, TakesAnExpressionThatMustMatchTheWholeName) {
  EXPECT_TRUE(*parsed(with("target_modules", ".*\\.(q_proj|down_proj)")).targets(kQ));
  EXPECT_FALSE(*parsed(with("target_modules", "q_proj")).targets(kQ));
  EXPECT_FALSE(*parsed(with("target_modules", ".*\\.(q|down)")).targets(kQ));
}

TEST(AdapterConfig, TakesAllLinear) {
  const AdapterConfig config = parsed(with("target_modules", "all-linear"));
  EXPECT_TRUE(*config.targets(kQ));
  EXPECT_FALSE(*config.targets("lm_head"));
}

TEST(AdapterConfig, FiltersByLayer) {
  ordered_json json = with("layers_to_transform", {3, 5});
  EXPECT_TRUE(*parsed(json).targets(kQ));
  EXPECT_FALSE(*parsed(json).targets(kDown));
  EXPECT_TRUE(*parsed(with("layers_to_transform", 3)).targets(kQ));
  json["layers_pattern"] = "layers";
  EXPECT_TRUE(*parsed(json).targets(kQ));
  json["layers_pattern"] = {"blocks", "h"};
  EXPECT_FALSE(*parsed(json).targets(kQ));
  EXPECT_TRUE(*parsed(json).targets("transformer.h.5.down_proj"));
}

TEST(AdapterConfig, LeavesOutExcludedModules) {
  EXPECT_FALSE(*parsed(with("exclude_modules", ordered_json::array({"q_proj"}))).targets(kQ));
  EXPECT_TRUE(*parsed(with("exclude_modules", ordered_json::array({"q_proj"}))).targets(kDown));
  EXPECT_FALSE(*parsed(with("exclude_modules", ".*layers\\.3\\..*")).targets(kQ));
}

TEST(AdapterConfig, RefusesWhatIsMissing) {
  for (const char* key : {"r", "lora_alpha", "target_modules", "peft_type"}) {
    ordered_json json = plain();
    json.erase(key);
    EXPECT_THAT(error_of(json), HasSubstr(std::string(key) + " is missing"));
    EXPECT_THAT(error_of(with(key, nullptr)), HasSubstr(std::string(key) + " is missing"));
  }
}

TEST(AdapterConfig, RefusesKindsThatWouldBeSilentlyWrong) {
  struct Case {
    const char* key;
    ordered_json value;
    const char* reason;
  };
  const std::vector<Case> cases = {
      {"peft_type", "LOHA", "only LORA is served"},
      {"task_type", "SEQ_CLS", "only CAUSAL_LM is served"},
      {"use_bdlora", {{"nblocks", 2}}, "block-diagonal"},
      {"kasa_config", {{"beta", 1e-4}}, "KaSA"},
      {"velora_config", {{"x", 1}}, "VeLoRA"},
      {"arrow_config", {{"top_k", 3}}, "Arrow"},
      {"monteclora_config", {{"x", 1}}, "MonteCLoRA"},
      {"alora_invocation_tokens", {1, 2}, "activated LoRA"},
      {"trainable_token_indices", {1}, "token embeddings"},
      {"layer_replication", {{0, 4}}, "replicated layers"},
      {"target_parameters", {"x"}, "parameters that are not modules"},
      {"megatron_config", {{"x", 1}}, "Megatron"},
      {"loftq_config", {{"loftq_bits", 4}}, "LoftQ"},
      {"ensure_weight_tying", true, "tied"},
      {"some_new_method", 0.5, "unknown setting"},
      {"some_new_switch", true, "unknown setting"},
      {"r", 0, "whole number from 1"},
      {"r", 8.5, "whole number"},
      {"r", "8", "whole number"},
      {"lora_alpha", "16", "must be a number"},
      {"use_dora", "yes", "true or false"},
      {"target_modules", 3, "must be a list of names or an expression"},
      {"target_modules", {1}, "is not a name"},
      {"target_modules", "(", "is not a regular expression"},
      {"rank_pattern", {{"q_proj", 0}}, "whole number from 1"},
      {"rank_pattern", {{"(", 4}}, "is not a regular expression"},
      {"rank_pattern", {4}, "must be an object"},
      {"alpha_pattern", {{"q_proj", nullptr}}, "is missing"},
      {"layers_to_transform", {"one"}, "is not a layer"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(error_of(with(c.key, c.value)), testing::AllOf(HasSubstr(c.key), HasSubstr(c.reason)))
        << c.key << " = " << c.value;
  }
}

TEST(AdapterConfig, RefusesStartsThatChangeTheBase) {
  for (const char* init : {"pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq", "something_new"}) {
    EXPECT_THAT(error_of(with("init_lora_weights", init)), HasSubstr("changes the base weights")) << init;
  }
  for (const ordered_json& init :
       std::vector<ordered_json>{true, false, "gaussian", "eva", "orthogonal", "mica", nullptr}) {
    EXPECT_EQ(error_of(with("init_lora_weights", init)), "") << init;
  }
}

// The list of what PEFT writes: what changes nothing, whatever its value. (The plain configuration of these tests has
// every key of PEFT 0.21; what is refused is above.)
TEST(AdapterConfig, TakesSettingsThatChangeNothing) {
  const std::vector<std::pair<const char*, ordered_json>> settings = {
      {"auto_mapping", {{"base_model_class", "Qwen2ForCausalLM"}}},
      {"base_model_name_or_path", "/home/somebody/model"},
      {"corda_config", {{"corda_method", "kpm"}}},
      {"eva_config", {{"rho", 2.0}}},
      {"inference_mode", false},
      {"lora_dropout", 0.5},
      {"lora_ga_config", {{"x", 1}}},
      {"megatron_core", "megatron.core"},
      {"peft_version", "0.17.1@abc"},
      {"qalora_group_size", 32},
      {"revision", "main"},
      {"runtime_config", {{"ephemeral_gpu_offload", false}}},
      {"task_type", nullptr},
      {"trainable_token_indices", nullptr},
      {"use_bdlora", nullptr},
      {"kasa_config", nullptr},
      {"modules_to_save", {"lm_head", "embed_tokens"}},
      {"modules_to_save", {"model.embed_tokens"}}};
  for (const auto& [key, value] : settings) EXPECT_EQ(error_of(with(key, value)), "") << key;
}

TEST(AdapterConfig, TakesWhatToolsAndPeopleNoteDown) {
  for (const auto& [key, value] : std::vector<std::pair<const char*, ordered_json>>{{"_comment", "second try"},
                                                                                    {"_name_or_path", "x"},
                                                                                    {"transformers_version", "5.17.0"},
                                                                                    {"unsloth_version", "2026.10"},
                                                                                    {"unsloth_fixed", true}}) {
    EXPECT_EQ(error_of(with(key, value)), "") << key;
  }
  EXPECT_EQ(error_of(with("r", 8.0)), "") << "a whole number, however it is written";
  EXPECT_EQ(error_of(with("swift_type", "LORA")), "");
  EXPECT_THAT(error_of(with("swift_type", "LONGLORA")), HasSubstr("swift_type = \"LONGLORA\": only LORA is served"));
}

// Whether there is any of it the tensors say (adapter_test).
TEST(AdapterConfig, SaysWhatWasTrainedBesideTheLora) {
  struct Case {
    const char* key;
    ordered_json value;
    const char* what;
  };
  for (const Case& c : std::vector<Case>{{"bias", "all", "trained biases"},
                                         {"bias", "lora_only", "trained biases"},
                                         {"modules_to_save", {"score"}, "whole modules"},
                                         {"modules_to_save", {"lm_head", "model.norm"}, "whole modules"},
                                         {"modules_to_save", "all", "whole modules"},
                                         {"modules_to_save", {1}, "whole modules"},
                                         {"lora_bias", true, "biases of lora_B"}}) {
    EXPECT_THAT(parsed(with(c.key, c.value)).trained_beside(), HasSubstr(c.what)) << c.key;
  }
  for (const ordered_json& json : {plain(), with("modules_to_save", {"lm_head"}), with("bias", "none")}) {
    EXPECT_EQ(parsed(json).trained_beside(), "");
  }
  EXPECT_THAT(error_of(with("bias", 3)), HasSubstr("bias"));
  EXPECT_EQ(error_of(with("fan_in_fan_out", true)), "") << "PEFT turns it off for linear layers";
}

TEST(AdapterConfig, IgnoresUnknownSettingsThatAreOff) {
  for (const ordered_json& off :
       std::vector<ordered_json>{nullptr, false, "", ordered_json::array(), ordered_json::object()}) {
    EXPECT_EQ(error_of(with("some_new_method", off)), "") << off;
  }
}

TEST(AdapterConfig, RefusesHostileText) {
  EXPECT_THAT(AdapterConfig::parse("", "x").error().message, HasSubstr("not valid JSON"));
  EXPECT_THAT(AdapterConfig::parse("[]", "x").error().message, HasSubstr("not a JSON object"));
  EXPECT_THAT(AdapterConfig::parse(R"({"r": 8, "r": 9})", "x").error().message,
              HasSubstr("the key \"r\" occurs twice"));
  EXPECT_THAT(AdapterConfig::parse("{\"r\":" + std::string(1000, '['), "x").error().message,
              HasSubstr("nested deeper"));
}

TEST(AdapterConfig, StopsExpressionsThatNeverEnd) {
  const AdapterConfig config = parsed(with("target_modules", "(a+)+b"));
  const auto targeted = config.targets(std::string(200, 'a') + "b.");
  ASSERT_FALSE(targeted.has_value());
  EXPECT_THAT(targeted.error().message, HasSubstr("cannot be matched"));
}

// The configurations that PEFT's own comparison of methods uses.
TEST(AdapterConfig, TakesOrRefusesPublishedConfigurations) {
  const std::filesystem::path dir = LORIKEET_SOURCE_DIR "/../shared/fixtures/public/peft_configs";
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "the published configurations are not here: " << dir;
  const auto read = [&](const char* name) {
    std::ifstream file(dir / name);
    return ordered_json::parse(file);
  };
  const AdapterConfig mlp = parsed(read("llama-3.2-3B-rank10-target-mlp.json"));
  EXPECT_EQ(*mlp.rank_of(kDown), 10);
  EXPECT_FLOAT_EQ(*mlp.scale_of(kDown), 2);
  EXPECT_THAT(error_of(read("llama-3.2-3B-rank14-target-mlp-bdlora.json")), HasSubstr("block-diagonal LoRA"));
  EXPECT_THAT(error_of(read("llama-3.2-3B-rank32-kasa.json")), HasSubstr("KaSA"));
  // Those that leave the targets to PEFT's table of models are not what PEFT saves.
  for (const char* name :
       {"llama-3.2-3B-rank32.json", "llama-3.2-3B-rank64-rslora.json", "llama-3.2-3B-rank32-dora.json"}) {
    ordered_json json = read(name);
    EXPECT_THAT(error_of(json), HasSubstr("target_modules is missing")) << name;
    json["target_modules"] = {"q_proj", "v_proj"};
    const AdapterConfig config = parsed(json);
    EXPECT_EQ(config.uses_dora(), std::string(name).find("dora") != std::string::npos);
    EXPECT_FLOAT_EQ(*config.scale_of(kQ), std::string(name).find("rslora") != std::string::npos ? 8 : 2);
  }
}

}  // namespace
}  // namespace lorikeet::model
