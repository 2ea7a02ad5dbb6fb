#include "model/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config/quant_config.h"
#include "tests/model/temp_dir.h"

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
  EXPECT_THAT(error_of(with(qwen2(), "partial_rotary_factor", 0.5)), HasSubstr("partial_rotary_factor = 0.5"));
  EXPECT_THAT(scaled({{"type", "default"}, {"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(scaled(json::array()), HasSubstr("must be an object"));
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
  EXPECT_THAT(error_of(with(qwen2(), "architectures", json::array())), HasSubstr("must be a list of one name"));
  EXPECT_THAT(error_of(json::object()), HasSubstr("architectures must be a list of one name"));
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

QuantConfig quant_of(const json& object) {
  auto quant = parse_quant_config(object, "q");
  if (!quant) throw std::runtime_error(quant.error().message);
  return *quant;
}

std::string quant_error(const json& object) {
  const auto quant = parse_quant_config(object, "q");
  return quant ? "" : quant.error().message;
}

TEST(QuantConfig, ReadsGptqOfBothVersions) {
  const json gptq = {{"bits", 4},    {"group_size", 128},      {"desc_act", true},
                     {"sym", false}, {"quant_method", "gptq"}, {"damp_percent", 0.01}};
  const QuantConfig quant = quant_of(gptq);
  EXPECT_EQ(quant.method, QuantMethod::gptq);
  EXPECT_EQ(quant.group_size, 128);
  EXPECT_TRUE(quant.desc_act);
  EXPECT_FALSE(quant.symmetric);
  EXPECT_EQ(quant_of(with(gptq, "checkpoint_format", "gptq_v2")).method, QuantMethod::gptq_v2);
  EXPECT_EQ(quant_of(with(gptq, "format", "gptq_v2")).method, QuantMethod::gptq_v2);
  EXPECT_EQ(quant_of(with(gptq, "group_size", -1)).group_size, -1);
  EXPECT_TRUE(quant_of({{"bits", 4}, {"group_size", 32}}).symmetric);
}

TEST(QuantConfig, RefusesGptqThatItWouldGetWrong) {
  const json gptq = {{"bits", 4}, {"group_size", 128}, {"quant_method", "gptq"}};
  EXPECT_THAT(quant_error(with(gptq, "bits", 3)), HasSubstr("bits = 3: only 4-bit and 8-bit weights are served"));
  EXPECT_THAT(quant_error(with(gptq, "group_size", 0)), HasSubstr("must be -1 or a positive number"));
  EXPECT_THAT(quant_error(with(gptq, "checkpoint_format", "marlin")), HasSubstr("only \"gptq\" and \"gptq_v2\""));
  EXPECT_THAT(quant_error(with(gptq, "is_marlin_format", true)), HasSubstr("Marlin"));
  EXPECT_THAT(quant_error(with(gptq, "lm_head", true)), HasSubstr("a quantised lm_head is not served"));
  EXPECT_THAT(quant_error(with(gptq, "dynamic", {"up"})), HasSubstr("must be an object of expressions"));
  EXPECT_THAT(quant_error(with(gptq, "dynamic", {{"+:.*up.*", {{"adapter", {{"rank", 64}}}}}})), HasSubstr("EoRA"));
  EXPECT_THAT(quant_error(with(gptq, "rotation", "hadamard")), HasSubstr("rotated weights"));
  EXPECT_EQ(quant_error(with(gptq, "dynamic", json::object())), "");
  EXPECT_THAT(quant_error({{"bits", 4}, {"group_size", 128}, {"checkpoint_format", "gptq"}, {"format", "gptq_v2"}}),
              HasSubstr("format = \"gptq_v2\": checkpoint_format says gptq"));
  EXPECT_THAT(quant_error(with(gptq, "adapter", {{"name", "lora"}, {"rank", 64}})), HasSubstr("EoRA"));
  EXPECT_THAT(quant_error(with(gptq, "pack_dtype", "int8")), HasSubstr("only int32 words"));
  EXPECT_THAT(quant_error(with(gptq, "quant_method", "bitsandbytes")),
              HasSubstr("only gptq, awq and compressed-tensors are served"));
}

TEST(QuantConfig, ReadsGptqOfEightBitsAndOfSettingsForSingleModules) {
  const json gptq = {{"bits", 8}, {"group_size", 128}, {"quant_method", "gptq"}, {"sym", true}};
  EXPECT_EQ(quant_of(gptq).bits, 8);
  EXPECT_TRUE(quant_of(gptq).symmetric_is_stated);
  const json dynamic = {{"-:.*up.*", json::object()}, {"+:.*down.*", {{"bits", 8}, {"group_size", 32}}}};
  EXPECT_TRUE(quant_of(with(gptq, "dynamic", dynamic)).symmetric_is_stated);
  EXPECT_FALSE(quant_of(with(gptq, "dynamic", {{".*down.*", {{"sym", false}}}})).symmetric_is_stated)
      << "some modules have zeros of their own";
}

TEST(QuantConfig, KnowsTheNamesThatToolsGiveTheirMethod) {
  for (const char* name : {"gptq", "GPTQ", "gptqmodel", "auto_gptq", "gptq_marlin"}) {
    EXPECT_EQ(quant_of({{"quant_method", name}, {"bits", 4}, {"group_size", 32}}).method, QuantMethod::gptq) << name;
  }
  for (const char* name : {"awq", "AWQ", "autoawq", "awq_marlin"}) {
    EXPECT_EQ(quant_of({{"quant_method", name}, {"bits", 4}, {"group_size", 32}}).method, QuantMethod::awq) << name;
  }
  for (const char* name : {"auto-round", "auto_round", "intel/auto-round", "autoround"}) {
    EXPECT_EQ(quant_of({{"quant_method", name}, {"bits", 4}, {"group_size", 32}}).method, QuantMethod::gptq) << name;
  }
  // Left out, but given away by another key.
  EXPECT_EQ(quant_of({{"w_bit", 4}, {"q_group_size", 32}}).method, QuantMethod::awq);
  EXPECT_EQ(quant_of({{"bits", 4}, {"group_size", 32}, {"packing_format", "auto_round:auto_awq"}}).method,
            QuantMethod::awq);
  for (const char* name : {"bitsandbytes", "hqq", "eetq", "fp8", "quark", "aqlm", "modelopt", "torchao", "marlin"}) {
    EXPECT_THAT(quant_error({{"quant_method", name}, {"bits", 4}}), AllOf(HasSubstr("quant_method"), HasSubstr(name)));
  }
}

TEST(QuantConfig, ReadsAutoRoundByItsPacking) {
  const json round = {{"quant_method", "auto-round"},
                      {"bits", 4},
                      {"group_size", 128},
                      {"sym", true},
                      {"data_type", "int"},
                      {"act_bits", 16},
                      {"iters", 200},
                      {"seqlen", 2048},
                      {"autoround_version", "0.5.1"},
                      {"extra_config", {{"model.layers.0.mlp.up_proj", {{"bits", 8}}}}}};
  for (const auto& [packing, method] :
       std::vector<std::pair<const char*, QuantMethod>>{{"auto_round:auto_gptq", QuantMethod::gptq},
                                                        {"auto_round:gptq", QuantMethod::gptq},
                                                        {"auto_gptq", QuantMethod::gptq},
                                                        {"auto_round:auto_awq", QuantMethod::awq},
                                                        {"auto_round", QuantMethod::gptq_v2}}) {
    EXPECT_EQ(quant_of(with(round, "packing_format", packing)).method, method) << packing;
  }
  for (const auto& [backend, method] :
       std::vector<std::pair<const char*, QuantMethod>>{{"auto", QuantMethod::gptq},
                                                        {"auto_round:gptq:exllamav2", QuantMethod::gptq},
                                                        {"gptq:exllamav2", QuantMethod::gptq},
                                                        {"auto_round:awq:gemm", QuantMethod::awq},
                                                        {"auto_round:exllamav2", QuantMethod::gptq_v2}}) {
    EXPECT_EQ(quant_of(with(round, "backend", backend)).method, method) << backend;
  }
  EXPECT_EQ(quant_of(round).group_size, 128);
  for (const char* packing : {"auto_round:llm_compressor", "auto_round:gguf", "auto_round:fp8_static", "itrex"}) {
    EXPECT_THAT(quant_error(with(round, "packing_format", packing)),
                AllOf(HasSubstr(packing), HasSubstr("only the packings of GPTQ and AWQ")));
  }
  EXPECT_THAT(quant_error(with(round, "data_type", "mx_fp")), HasSubstr("data_type = \"mx_fp\""));
  EXPECT_THAT(quant_error(with(round, "act_bits", 8)), HasSubstr("quantised activations"));
  EXPECT_THAT(quant_error(with(round, "super_bits", 6)), HasSubstr("quantised scales"));
}

TEST(QuantConfig, ReadsAwqInBothSpellings) {
  EXPECT_EQ(quant_of({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 64}, {"version", "gemm"}}).group_size, 64);
  const QuantConfig quant = quant_of(
      {{"quant_method", "awq"}, {"w_bit", 4}, {"q_group_size", 128}, {"version", "GEMM"}, {"zero_point", true}});
  EXPECT_EQ(quant.method, QuantMethod::awq);
  EXPECT_EQ(quant.group_size, 128);
  for (const char* version : {"gemv", "gemv_fast", "marlin", "exllama"}) {
    EXPECT_THAT(quant_error({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 64}, {"version", version}}),
                HasSubstr("only AWQ's \"gemm\" packing"));
  }
  EXPECT_THAT(quant_error({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 64}, {"backend", "llm-awq"}}),
              HasSubstr("AutoAWQ"));
}

TEST(QuantConfig, ReadsCompressedTensors) {
  const json weights = {
      {"num_bits", 4}, {"type", "int"}, {"symmetric", true}, {"strategy", "group"}, {"group_size", 128}};
  const auto config = [](const json& w, const json& group = json::object(), const json& top = json::object()) {
    json g = {{"targets", {"Linear"}}, {"weights", w}};
    g.update(group);
    json object = {{"quant_method", "compressed-tensors"},
                   {"format", "pack-quantized"},
                   {"config_groups", {{"group_0", g}}},
                   {"ignore", {"lm_head"}}};
    object.update(top);
    return object;
  };
  EXPECT_EQ(quant_of(config(weights)).method, QuantMethod::compressed_tensors);
  EXPECT_EQ(quant_of(config(weights)).group_size, 128);
  EXPECT_EQ(quant_of(config({{"num_bits", 4}, {"strategy", "channel"}})).group_size, -1);
  EXPECT_FALSE(quant_of(config(with(weights, "symmetric", false))).symmetric);
  EXPECT_TRUE(quant_of(config(with(weights, "actorder", "group"))).desc_act);
  EXPECT_FALSE(quant_of(config(with(weights, "actorder", "weight"))).desc_act);
  EXPECT_EQ(quant_of(config(with(weights, "num_bits", 8))).bits, 8);
  EXPECT_THAT(quant_error(config(with(weights, "num_bits", 2))), HasSubstr("only 4-bit"));
  for (const char* status : {"compressed", "frozen", "initialized", "calibration"}) {
    EXPECT_EQ(quant_error(config(weights, json::object(), {{"quantization_status", status}})), "") << status;
  }
  for (const json& ignore : std::vector<json>{json::array(), {"lm_head", "re:.*down_proj"}, nullptr}) {
    EXPECT_EQ(quant_error(config(weights, json::object(), {{"ignore", ignore}})), "") << ignore;
  }
  json two = config(weights);
  two["format"] = "mixed-precision";
  two["config_groups"]["group_0"]["format"] = "pack-quantized";
  two["config_groups"]["group_1"] = {
      {"targets", {"re:.*down_proj"}}, {"format", "pack-quantized"}, {"weights", with(weights, "num_bits", 8)}};
  EXPECT_EQ(quant_error(two), "");
  two["config_groups"]["group_1"].erase("format");
  EXPECT_THAT(quant_error(two), HasSubstr("only \"pack-quantized\""));
  EXPECT_THAT(quant_error(config(with(weights, "type", "float"))), HasSubstr("only int weights"));
  EXPECT_THAT(quant_error(config(with(weights, "strategy", "tensor"))), HasSubstr("only \"group\" and \"channel\""));
  EXPECT_THAT(quant_error(config(with(weights, "actorder", "x"))), HasSubstr("actorder"));
  EXPECT_THAT(quant_error(config(weights, {{"input_activations", {{"num_bits", 8}}}})),
              HasSubstr("quantised activations"));
  EXPECT_THAT(quant_error(config(weights, {{"format", "int-quantized"}})), HasSubstr("only \"pack-quantized\""));
  EXPECT_THAT(quant_error(config(weights, json::object(), {{"format", "marlin-24"}})),
              HasSubstr("only \"pack-quantized\""));
  EXPECT_THAT(quant_error(config(weights, json::object(), {{"kv_cache_scheme", {{"num_bits", 8}}}})),
              HasSubstr("quantised KV cache"));
  EXPECT_THAT(quant_error(config(weights, json::object(), {{"sparsity_config", {{"format", "sparse-24"}}}})),
              HasSubstr("sparse"));
  EXPECT_EQ(quant_error(config(weights, json::object(), {{"sparsity_config", {{"format", "dense"}}}})), "");
  EXPECT_THAT(quant_error(config(weights, json::object(), {{"transform_config", {{"x", 1}}}})),
              HasSubstr("transformed"));
  EXPECT_THAT(quant_error({{"quant_method", "compressed-tensors"}}), HasSubstr("config_groups"));
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
                                   {"repetition_penalty", 1.05},
                                   {"do_sample", true}});
  defaults = read_generation_defaults(dir_.path());
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_THAT(defaults->eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_FLOAT_EQ(*defaults->temperature, 0.7F);
  EXPECT_FLOAT_EQ(*defaults->top_p, 0.8F);
  EXPECT_EQ(*defaults->top_k, 20);
  EXPECT_FLOAT_EQ(*defaults->repetition_penalty, 1.05F);
  EXPECT_FALSE(defaults->min_p);
  write("generation_config.json", {{"chat_format", "chatml"}, {"eos_token_id", 151643}, {"top_k", 0}});
  EXPECT_THAT(read_generation_defaults(dir_.path())->eos_token_ids, ElementsAre(151643, 151645, 151644));
}

TEST_F(ConfigFiles, AreRefusedWithDefaultsOutOfRange) {
  write("config.json", qwen2());
  for (const auto& [key, value] : std::vector<std::pair<const char*, json>>{{"temperature", -1},
                                                                            {"temperature", "hot"},
                                                                            {"top_p", 1.5},
                                                                            {"min_p", -0.1},
                                                                            {"top_k", 1.5},
                                                                            {"top_k", -2},
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
