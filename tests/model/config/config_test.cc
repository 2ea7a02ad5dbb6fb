#include "model/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/temp_dir.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

json qwen2() {
  return json::parse(
      R"({"architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "vocab_size": 152064, "hidden_size": 5120,
    "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "tie_word_embeddings": false, "rope_theta": 1000000.0,
    "sliding_window": 131072, "use_sliding_window": false, "max_window_layers": 70, "torch_dtype": "bfloat16"})");
}

json qwen_v1() {
  return json::parse(R"({"architectures": ["QWenLMHeadModel"], "hidden_size": 5120, "intermediate_size": 27392,
    "kv_channels": 128, "layer_norm_epsilon": 1e-06, "max_position_embeddings": 8192, "no_bias": true,
    "num_attention_heads": 40, "num_hidden_layers": 40, "rotary_emb_base": 10000, "rotary_pct": 1.0,
    "scale_attn_weights": true, "seq_length": 2048, "tie_word_embeddings": false, "use_dynamic_ntk": true,
    "use_logn_attn": true, "vocab_size": 152064})");
}

json with(json object, const char* key, const json& value) {
  object[key] = value;
  return object;
}

ModelConfig parsed(const json& object) {
  auto config = parse_model_config(object, "config.json");
  if (!config) throw std::runtime_error(config.error().message);
  return *config;
}

std::string error_of(const json& object) {
  const auto config = parse_model_config(object, "config.json");
  return config ? "" : config.error().message;
}

TEST(Config, ReadsQwen2) {
  const ModelConfig config = parsed(qwen2());
  EXPECT_EQ(config.architecture, Architecture::qwen2);
  EXPECT_EQ(config.hidden_size, 5120);
  EXPECT_EQ(config.num_layers, 48);
  EXPECT_EQ(config.num_heads, 40);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.intermediate_size, 13824);
  EXPECT_EQ(config.vocab_size, 152064);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-6F);
  EXPECT_EQ(config.rope_theta, 1e6);
  EXPECT_FALSE(config.yarn);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.torch_dtype, "bfloat16");
  EXPECT_EQ(config.seq_length, 0);
  json mha = qwen2();
  mha.erase("num_key_value_heads");
  EXPECT_EQ(parsed(mha).num_kv_heads, 40);
}

TEST(Config, ReadsQwen3WithAHeadSizeOfItsOwn) {
  json object = with(qwen2(), "architectures", {"Qwen3ForCausalLM"});
  object["attention_bias"] = false;
  object["hidden_size"] = 2560;
  object["num_attention_heads"] = 32;
  EXPECT_EQ(parsed(object).head_dim, 128);
  EXPECT_EQ(parsed(with(object, "head_dim", 64)).head_dim, 64);
  EXPECT_THAT(error_of(with(object, "attention_bias", true)), HasSubstr("attention_bias = true: Qwen3 with biases"));
}

TEST(Config, ReadsQwenV1WithItsOwnSpelling) {
  const ModelConfig config = parsed(qwen_v1());
  EXPECT_EQ(config.architecture, Architecture::qwen);
  EXPECT_EQ(config.intermediate_size, 13696);
  EXPECT_EQ(config.num_kv_heads, 40);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_TRUE(config.use_dynamic_ntk);
  EXPECT_TRUE(config.use_logn_attn);
  EXPECT_EQ(config.seq_length, 2048);
  EXPECT_EQ(config.max_position_embeddings, 8192);
  json plain = with(qwen_v1(), "use_dynamic_ntk", false);
  plain["use_logn_attn"] = false;
  EXPECT_EQ(parsed(plain).seq_length, 0);
  EXPECT_THAT(error_of(with(qwen_v1(), "no_bias", false)), HasSubstr("no_bias = false"));
  EXPECT_THAT(error_of(with(qwen_v1(), "rotary_pct", 0.5)), HasSubstr("rotary_pct = 0.5: only 1.0 is served"));
  EXPECT_THAT(error_of(with(qwen_v1(), "intermediate_size", 27391)), HasSubstr("must be even"));
  EXPECT_THAT(error_of(with(qwen_v1(), "kv_channels", 64)), HasSubstr("40 heads of 64 are not hidden_size 5120"));
  EXPECT_THAT(error_of(with(qwen_v1(), "rope_scaling", {{"type", "yarn"}})), HasSubstr("use_dynamic_ntk"));
  EXPECT_THAT(error_of(with(qwen_v1(), "use_cache_quantization", true)), HasSubstr("quantised KV cache"));
}

TEST(Config, ReadsRopeParametersOfNewerFiles) {
  json object = qwen2();
  object.erase("rope_theta");
  EXPECT_EQ(parsed(object).rope_theta, 10000);
  object["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "default"}};
  EXPECT_EQ(parsed(object).rope_theta, 5e5);
  object["rope_parameters"] = {
      {"rope_theta", 5e5}, {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  EXPECT_EQ(parsed(object).rope_theta, 5e5);
  EXPECT_EQ(parsed(object).yarn->factor, 4);
}

TEST(Config, ReadsYarn) {
  for (const char* key : {"type", "rope_type"}) {
    const ModelConfig config = parsed(
        with(qwen2(), "rope_scaling", {{key, "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}}));
    ASSERT_TRUE(config.yarn);
    EXPECT_EQ(config.yarn->original_max_position_embeddings, 32768);
    EXPECT_EQ(config.yarn->beta_fast, 32);
    EXPECT_EQ(config.yarn->beta_slow, 1);
    EXPECT_FLOAT_EQ(config.yarn->attention_factor, 1.1386294F);
  }
  json scaling = {{"type", "yarn"},
                  {"factor", 2.0},
                  {"original_max_position_embeddings", 100},
                  {"attention_factor", 1.5},
                  {"beta_fast", 16}};
  EXPECT_FLOAT_EQ(parsed(with(qwen2(), "rope_scaling", scaling)).yarn->attention_factor, 1.5F);
  EXPECT_EQ(parsed(with(qwen2(), "rope_scaling", scaling)).yarn->beta_fast, 16);
  EXPECT_TRUE(parsed(with(qwen2(), "rope_scaling", scaling)).yarn->truncate);
  EXPECT_FALSE(parsed(with(qwen2(), "rope_scaling", with(scaling, "truncate", false))).yarn->truncate);
  EXPECT_FALSE(parsed(with(qwen2(), "rope_scaling", nullptr)).yarn);
  EXPECT_FALSE(parsed(with(qwen2(), "rope_scaling", {{"rope_type", "default"}})).yarn);
}

TEST(Config, TakesAScalingAddedByHandBesideRopeParametersAndRefusesContradictions) {
  json object = qwen2();
  object.erase("rope_theta");
  object["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "default"}};
  object["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 100}};
  EXPECT_EQ(parsed(object).rope_theta, 5e5);
  EXPECT_EQ(parsed(object).yarn->factor, 4);
  EXPECT_THAT(error_of(with(object, "rope_theta", 1e6)),
              HasSubstr("rope_theta = 500000.0: elsewhere in the file it is 1000000"));
  object["rope_parameters"] = object["rope_scaling"];
  EXPECT_EQ(parsed(object).yarn->factor, 4);
  object["rope_parameters"]["factor"] = 2.0;
  EXPECT_THAT(error_of(object), HasSubstr("differs from rope_scaling"));
  object["rope_scaling"] = {{"type", "default"}};
  EXPECT_THAT(error_of(object), HasSubstr("differs from rope_scaling"));
}

TEST(Config, RefusesScalingThatItWouldGetWrong) {
  const auto scaled = [](const json& scaling) { return error_of(with(qwen2(), "rope_scaling", scaling)); };
  EXPECT_THAT(scaled({{"type", "yarn"}, {"factor", 4.0}}), HasSubstr("original_max_position_embeddings is missing"));
  EXPECT_THAT(scaled({{"type", "yarn"}, {"original_max_position_embeddings", 100}}), HasSubstr("factor is missing"));
  EXPECT_THAT(scaled({{"type", "linear"}, {"factor", 2}}),
              HasSubstr("type = \"linear\": only default and yarn are served"));
  EXPECT_THAT(scaled({{"rope_type", "llama3"}, {"factor", 2}}), HasSubstr("rope_type = \"llama3\""));
  EXPECT_THAT(scaled({{"type", "longrope"}, {"long_factor", {1, 2}}}), HasSubstr("type = \"longrope\""))
      << "what it is, not which of its settings is unknown";
  EXPECT_THAT(scaled({{"type", "yarn"}, {"factor", 0.5}, {"original_max_position_embeddings", 100}}),
              HasSubstr("factor = 0.5"));
  EXPECT_THAT(
      scaled({{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 100}, {"long_factor", {1}}}),
      HasSubstr("long_factor = [1]: unknown setting"));
  json outside =
      with(qwen2(), "rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 100}});
  EXPECT_THAT(error_of(with(outside, "original_max_position_embeddings", 200)),
              HasSubstr("original_max_position_embeddings = 100: beside the scaling it is 200"));
  EXPECT_EQ(error_of(with(outside, "original_max_position_embeddings", 100)), "");
  outside["rope_scaling"].erase("original_max_position_embeddings");
  EXPECT_EQ(parsed(with(outside, "original_max_position_embeddings", 100)).yarn->original_max_position_embeddings, 100);
  EXPECT_THAT(error_of(with(qwen2(), "partial_rotary_factor", 0.5)), HasSubstr("partial_rotary_factor = 0.5"));
  EXPECT_THAT(scaled({{"type", "default"}, {"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(scaled(json::array()), HasSubstr("must be an object"));
}

TEST(Config, TakesNotesOnAScalingThatSayNothingAndRefusesTwoKindsAtOnce) {
  const json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 100}};
  const auto scaled = [](const json& scaling) { return error_of(with(qwen2(), "rope_scaling", scaling)); };
  for (const auto& [key, value] : std::vector<std::pair<const char*, json>>{
           {"finetuned", true}, {"extrapolation_factor", 1}, {"attn_factor", 1.0}, {"apply_yarn_scaling", true}}) {
    EXPECT_EQ(scaled(with(yarn, key, value)), "") << key;
  }
  EXPECT_THAT(scaled(with(yarn, "attn_factor", 0.5)), HasSubstr("attn_factor = 0.5: unknown setting"));
  EXPECT_THAT(scaled(with(yarn, "apply_yarn_scaling", false)), HasSubstr("apply_yarn_scaling"));
  EXPECT_EQ(scaled(with(yarn, "type", "yarn")), "");
  EXPECT_THAT(scaled(with(yarn, "type", "default")), HasSubstr("type = \"default\": rope_type says yarn"))
      << "transformers goes by the one, vLLM by the other";
}

TEST(Config, TakesWholeNumbersThatAToolWroteAsFractions) {
  json object = with(qwen2(), "hidden_size", 5120.0);
  object["rope_scaling"] = {{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 32768.0}};
  EXPECT_EQ(parsed(object).hidden_size, 5120);
  EXPECT_EQ(parsed(object).yarn->original_max_position_embeddings, 32768);
  for (const json& size : std::vector<json>{5120.5, 1e300, -5120.0}) {
    EXPECT_THAT(error_of(with(qwen2(), "hidden_size", size)), HasSubstr("must be a whole number")) << size;
  }
}

TEST(Config, RefusesSlidingWindowsUnlessTheyAreOff) {
  json object = with(qwen2(), "use_sliding_window", true);
  object["max_window_layers"] = 21;
  EXPECT_THAT(error_of(object), HasSubstr("sliding-window attention (layers 21 to 47) is not served"));
  EXPECT_EQ(error_of(with(object, "max_window_layers", 48)), "");
  EXPECT_EQ(error_of(with(object, "sliding_window", nullptr)), "");
  json without_size = object;
  without_size.erase("sliding_window");
  EXPECT_THAT(error_of(without_size), HasSubstr("layers 21 to 47")) << "transformers then takes 4096";
  EXPECT_EQ(error_of(with(object, "use_sliding_window", false)), "");
  EXPECT_THAT(error_of(with(qwen2(), "layer_types", {"full_attention", "sliding_attention"})),
              HasSubstr("only full_attention"));
  EXPECT_EQ(error_of(with(qwen2(), "layer_types", {"full_attention", "full_attention"})), "");
}

TEST(Config, RefusesOtherArchitectures) {
  for (const json& names :
       std::vector<json>{{"LlamaForCausalLM"}, {"Qwen2MoeForCausalLM"}, {"Qwen2VLForConditionalGeneration"}}) {
    EXPECT_THAT(error_of(with(qwen2(), "architectures", names)),
                AllOf(HasSubstr(names[0].get<std::string>()),
                      HasSubstr("only Qwen2ForCausalLM, Qwen3ForCausalLM and QWenLMHeadModel are served")));
  }
  EXPECT_THAT(error_of(json::object()), HasSubstr("architectures must be a list of one name"));
  json unnamed = qwen2();
  unnamed.erase("architectures");
  EXPECT_THAT(error_of(unnamed), HasSubstr("architectures must be a list of one name"));
  EXPECT_THAT(error_of(with(unnamed, "model_type", "llama")), HasSubstr("architectures must be a list of one name"));
  EXPECT_EQ(parsed(with(unnamed, "model_type", "qwen2")).architecture, Architecture::qwen2);
  EXPECT_EQ(parsed(with(unnamed, "model_type", "qwen3")).architecture, Architecture::qwen3);
  unnamed["architectures"] = json::array();
  EXPECT_EQ(parsed(with(unnamed, "model_type", "qwen2")).architecture, Architecture::qwen2) << "a list without names";
  EXPECT_THAT(error_of(with(qwen2(), "hidden_act", "gelu")), HasSubstr("only silu is served"));
}

TEST(Config, RefusesSizesThatAreMissingOrAbsurd) {
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"}) {
    json object = qwen2();
    object.erase(key);
    EXPECT_THAT(error_of(object), HasSubstr(std::string(key) + " is missing")) << key;
    for (const json& value : std::vector<json>{0, -1, 1.5, "12", 1ull << 40, true, json::array({1})}) {
      EXPECT_THAT(error_of(with(qwen2(), key, value)), AllOf(HasSubstr(key), HasSubstr("must be a whole number")))
          << key << value;
    }
  }
  EXPECT_THAT(error_of(with(qwen2(), "num_key_value_heads", 7)),
              HasSubstr("40 attention heads do not divide into 7 KV heads"));
  EXPECT_THAT(error_of(with(qwen2(), "hidden_size", 5121)), HasSubstr("hidden_size 5121 does not divide by 40 heads"));
  EXPECT_THAT(error_of(with(qwen2(), "head_dim", 127)), HasSubstr("head_dim 127 is odd"));
  EXPECT_THAT(error_of(with(qwen2(), "rms_norm_eps", 0)), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(error_of(with(qwen2(), "rope_theta", "x")), HasSubstr("rope_theta"));
  EXPECT_THAT(error_of(with(qwen2(), "tie_word_embeddings", 1)), HasSubstr("true or false"));
}

class ConfigFiles : public testing::Test {
 protected:
  void write(const char* name, const json& object) { tests::write_file(dir_ / name, object.dump()); }
  tests::TempDir dir_;
};

TEST_F(ConfigFiles, TakeTheQuantisationFromEitherFileButNotFromBothWhenTheyDisagree) {
  write("config.json", qwen2());
  EXPECT_EQ(read_model_config(dir_.path())->quant.method, QuantMethod::none);
  write("quantize_config.json", {{"bits", 4}, {"group_size", 64}, {"desc_act", false}});
  EXPECT_EQ(read_model_config(dir_.path())->quant.group_size, 64);
  write("config.json",
        with(qwen2(), "quantization_config", {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}}));
  EXPECT_EQ(read_model_config(dir_.path())->quant.group_size, 64);
  write("quantize_config.json", {{"bits", 4}, {"group_size", 128}});
  EXPECT_THAT(read_model_config(dir_.path()).error().message,
              HasSubstr("config.json says group_size 64, quantize_config.json says 128"));
  write("quantize_config.json", {{"bits", 4}, {"group_size", 64}, {"desc_act", true}});
  EXPECT_THAT(read_model_config(dir_.path()).error().message, HasSubstr("desc_act"));
  write("quantize_config.json", {{"bits", 4}, {"group_size", 64}, {"sym", false}});
  EXPECT_TRUE(read_model_config(dir_.path())) << "config.json does not say whether it is symmetric";
}

TEST_F(ConfigFiles, SayWithAnEmptyQuantisationThatThereIsNone) {
  for (const json& none : std::vector<json>{nullptr, json::object()}) {
    write("config.json", with(qwen2(), "quantization_config", none));
    ASSERT_TRUE(read_model_config(dir_.path())) << none;
    EXPECT_EQ(read_model_config(dir_.path())->quant.method, QuantMethod::none) << none;
  }
}

TEST_F(ConfigFiles, TakeTheQuantisationFromTheFilesOfAutoAwqAndOfOlderLlmCompressors) {
  write("config.json", qwen2());
  write("quant_config.json", {{"zero_point", true}, {"q_group_size", 64}, {"w_bit", 4}, {"version", "GEMM"}});
  EXPECT_EQ(read_model_config(dir_.path())->quant.method, QuantMethod::awq);
  EXPECT_EQ(read_model_config(dir_.path())->quant.group_size, 64);
  const json compressed = {
      {"format", "pack-quantized"},
      {"config_groups", {{"g", {{"weights", {{"num_bits", 4}, {"strategy", "group"}, {"group_size", 32}}}}}}}};
  write("config.json", with(qwen2(), "compression_config", compressed));
  EXPECT_THAT(read_model_config(dir_.path()).error().message,
              HasSubstr("config.json says method compressed-tensors, quant_config.json says awq"));
  std::filesystem::remove(dir_ / "quant_config.json");
  EXPECT_EQ(read_model_config(dir_.path())->quant.method, QuantMethod::compressed_tensors);
  EXPECT_EQ(read_model_config(dir_.path())->quant.group_size, 32);
}

TEST_F(ConfigFiles, OfEveryQuantiserAreReadAndMustAgree) {
  for (const auto& [file, content] : std::vector<std::pair<const char*, json>>{
           {"quantize_config.json", {{"bits", 8}, {"group_size", 64}}},
           {"quant_config.json", {{"zero_point", true}, {"q_group_size", 64}, {"w_bit", 4}, {"version", "GEMM"}}},
           {"quantization_config.json",
            {{"quant_method", "auto-round"}, {"bits", 8}, {"group_size", 64}, {"packing_format", "auto_gptq"}}}}) {
    write("config.json", qwen2());
    write(file, content);
    EXPECT_EQ(read_model_config(dir_.path())->quant.group_size, 64) << file;
    write("config.json",
          with(qwen2(), "quantization_config", {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}}));
    EXPECT_THAT(read_model_config(dir_.path()).error().message, AllOf(HasSubstr("config.json says"), HasSubstr(file)));
    std::filesystem::remove(dir_ / file);
  }
}

TEST_F(ConfigFiles, AreRefusedWhenTheyAreNotThereOrNotJson) {
  EXPECT_THAT(read_model_config(dir_ / "none").error().message, HasSubstr("no such directory"));
  EXPECT_THAT(read_model_config(dir_.path()).error().message, HasSubstr("not a checkpoint: there is no config.json"));
  tests::write_file(dir_ / "config.json", "{\"a\": 1,}");
  EXPECT_THAT(read_model_config(dir_.path()).error().message, HasSubstr("not valid JSON"));
  tests::write_file(dir_ / "config.json", "[1]");
  EXPECT_THAT(read_model_config(dir_.path()).error().message, HasSubstr("not a JSON object"));
  tests::write_file(dir_ / "config.json", "{\"a\":" + std::string(40, '[') + std::string(40, ']') + "}");
  EXPECT_THAT(read_model_config(dir_.path()).error().message, HasSubstr("nested deeper than 32 levels"));
  tests::write_file(dir_ / "config.json", std::string(2 << 20, ' '));
  EXPECT_THAT(read_model_config(dir_.path()).error().message, HasSubstr("at most 1048576 are read"));
}

TEST_F(ConfigFiles, GiveTheDefaultsOfGeneration) {
  write("config.json", with(qwen2(), "eos_token_id", 7));
  auto defaults = read_generation_defaults(dir_.path());
  ASSERT_TRUE(defaults);
  EXPECT_THAT(defaults->eos_token_ids, ElementsAre(7));
  EXPECT_FALSE(defaults->temperature);
  write("generation_config.json", {{"eos_token_id", {151645, 151643}},
                                   {"temperature", 0.7},
                                   {"top_p", 0.8},
                                   {"top_k", 20},
                                   {"max_new_tokens", 2048},
                                   {"repetition_penalty", 1.05},
                                   {"do_sample", true}});
  defaults = read_generation_defaults(dir_.path());
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_THAT(defaults->eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_FLOAT_EQ(*defaults->temperature, 0.7F);
  EXPECT_FLOAT_EQ(*defaults->top_p, 0.8F);
  EXPECT_EQ(*defaults->top_k, 20);
  EXPECT_EQ(*defaults->max_new_tokens, 2048);
  EXPECT_FLOAT_EQ(*defaults->repetition_penalty, 1.05F);
  EXPECT_FALSE(defaults->min_p);
  write("generation_config.json", {{"chat_format", "chatml"}, {"eos_token_id", 151643}, {"top_k", 0}});
  EXPECT_THAT(read_generation_defaults(dir_.path())->eos_token_ids, ElementsAre(151643, 151645, 151644));
  write("generation_config.json", {{"max_new_tokens", -1}});
  EXPECT_FALSE(read_generation_defaults(dir_.path())->max_new_tokens) << "no bound";
  write("generation_config.json", {{"eos_token_id", {2, 200000}}});
  EXPECT_THAT(read_generation_defaults(dir_.path())->eos_token_ids, ElementsAre(2)) << "one is of another model";
  write("generation_config.json", {{"eos_token_id", 200000}});
  EXPECT_THAT(read_generation_defaults(dir_.path())->eos_token_ids, ElementsAre(7)) << "that of config.json";
}

TEST_F(ConfigFiles, AreRefusedWithDefaultsOutOfRange) {
  write("config.json", qwen2());
  for (const auto& [key, value] : std::vector<std::pair<const char*, json>>{{"temperature", -1},
                                                                            {"temperature", "hot"},
                                                                            {"top_p", 1.5},
                                                                            {"min_p", -0.1},
                                                                            {"top_k", 1.5},
                                                                            {"top_k", -2},
                                                                            {"max_new_tokens", "many"},
                                                                            {"repetition_penalty", 0},
                                                                            {"eos_token_id", "x"},
                                                                            {"eos_token_id", {1, -1}}}) {
    write("generation_config.json", {{key, value}});
    const auto defaults = read_generation_defaults(dir_.path());
    ASSERT_FALSE(defaults.has_value()) << key << value;
    EXPECT_THAT(defaults.error().message, AllOf(HasSubstr("generation_config.json"), HasSubstr(key)));
  }
}

}  // namespace
}  // namespace lorikeet::model
