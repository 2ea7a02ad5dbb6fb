#include "model/config/quant_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace lorikeet::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

json with(json object, const char* key, const json& value) {
  object[key] = value;
  return object;
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
  EXPECT_EQ(quant_error(with(gptq, "lm_head", true)), "") << "whether it is quantised its tensors say";
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
                                                        {"auto_round:gptqmodel", QuantMethod::gptq_v2},
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

TEST(QuantConfig, ReadsThePackingOfAwqUnderGptqModelsNames) {
  const json awq = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 64}, {"sym", false}, {"desc_act", false}};
  for (const char* key : {"checkpoint_format", "format"}) {
    EXPECT_EQ(quant_of(with(awq, key, "gemm")).method, QuantMethod::awq) << key;
    for (const char* format : {"gemv", "gemv_fast", "llm-awq"}) {
      EXPECT_THAT(quant_error(with(awq, key, format)),
                  AllOf(HasSubstr(key), HasSubstr(format), HasSubstr("only AWQ's \"gemm\" packing")));
    }
  }
}

TEST(QuantConfig, RefusesRotatedWeightsOfEveryMethod) {
  for (const char* method : {"gptq", "awq", "auto-round"}) {
    const json plain = {{"quant_method", method}, {"bits", 4}, {"group_size", 32}};
    for (const char* key : {"rotation", "rotation_config", "hadamard_config"}) {
      EXPECT_THAT(quant_error(with(plain, key, {{"hadamard_type", "hadamard"}, {"block_size", 32}})),
                  AllOf(HasSubstr(key), HasSubstr("rotated weights are not served")))
          << method;
      for (const json& off : std::vector<json>{nullptr, json::object(), ""}) {
        EXPECT_EQ(quant_error(with(plain, key, off)), "") << method << key << off;
      }
    }
  }
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

}  // namespace
}  // namespace lorikeet::model
