#include "model/adapter/adapter_tensor_name.h"

#include <gtest/gtest.h>

#include <vector>

namespace lorikeet::model {
namespace {

using Kind = AdapterTensorName::Kind;

TEST(AdapterTensorName, IsTheSameModuleWhateverSavedIt) {
  for (const char* before :
       {"base_model.model.model.", "model.", "", "base_model.model.", "base_model.model.model.model.",
        "module.base_model.model.model.", "_orig_mod.base_model.model.model.", "base_model.model._orig_mod.model.",
        "base_model.model.model.language_model.", "model.language_model.", "language_model.model."}) {
    for (const char* after : {"lora_A.weight", "lora_A.default.weight", "lora_A.my-adapter_2.weight"}) {
      const std::string text = std::string(before) + "layers.3.self_attn.q_proj." + after;
      const auto name = parse_adapter_tensor_name(text);
      ASSERT_TRUE(name) << text;
      EXPECT_EQ(name->kind, Kind::a);
      EXPECT_EQ(name->module, "model.layers.3.self_attn.q_proj") << text;
    }
  }
  EXPECT_EQ(parse_adapter_tensor_name("base_model.model.transformer.h.1.attn.c_attn.lora_B.weight")->module,
            "transformer.h.1.attn.c_attn");
  EXPECT_EQ(parse_adapter_tensor_name("model.layers.0._fsdp_wrapped_module.mlp.up_proj.lora_B.weight")->module,
            "model.layers.0.mlp.up_proj");
  EXPECT_EQ(parse_adapter_tensor_name("base_model.model.lm_head.lora_A.weight")->module, "lm_head");
  EXPECT_EQ(parse_adapter_tensor_name("base_model.model.layers.0.mlp.up_proj.lora_A.weight")->stored_module,
            "layers.0.mlp.up_proj");
}

TEST(AdapterTensorName, TellsEveryPartAndTheNameOfItsAdapter) {
  struct Case {
    const char* text;
    Kind kind;
    const char* adapter;
  };
  for (const Case& c : std::vector<Case>{
           {"model.layers.0.mlp.up_proj.lora_A.weight", Kind::a, ""},
           {"model.layers.0.mlp.up_proj.lora_B.default.weight", Kind::b, "default"},
           {"model.layers.0.mlp.up_proj.lora_magnitude_vector", Kind::magnitude, ""},
           {"model.layers.0.mlp.up_proj.lora_magnitude_vector.weight", Kind::magnitude, ""},
           {"model.layers.0.mlp.up_proj.lora_magnitude_vector.other", Kind::magnitude, "other"},
           {"model.layers.0.mlp.up_proj.lora_magnitude_vector.default.weight", Kind::magnitude, "default"},
           {"model.embed_tokens.lora_embedding_A", Kind::embedding_a, ""},
           {"model.embed_tokens.lora_embedding_A.default", Kind::embedding_a, "default"},
           {"base_model.model.model.embed_tokens.lora_embedding_B.x", Kind::embedding_b, "x"}}) {
    const auto name = parse_adapter_tensor_name(c.text);
    ASSERT_TRUE(name) << c.text;
    EXPECT_EQ(name->kind, c.kind) << c.text;
    EXPECT_EQ(name->adapter, c.adapter) << c.text;
  }
}

TEST(AdapterTensorName, KnowsCopiesOfTheBasesTables) {
  for (const char* text :
       {"base_model.model.lm_head.weight", "base_model.model.lm_head.base_layer.weight", "lm_head.weight",
        "base_model.model.lm_head.modules_to_save.default.weight", "base_model.model.lm_head.modules_to_save.weight",
        "base_model.model.lm_head.original_module.weight"}) {
    const auto name = parse_adapter_tensor_name(text);
    ASSERT_TRUE(name) << text;
    EXPECT_EQ(name->kind, Kind::base_copy);
    EXPECT_EQ(name->module, "lm_head");
  }
  EXPECT_EQ(parse_adapter_tensor_name("base_model.model.model.embed_tokens.weight")->module, "model.embed_tokens");
  EXPECT_EQ(parse_adapter_tensor_name("base_model.model.transformer.wte.base_layer.weight")->module, "transformer.wte");
}

TEST(AdapterTensorName, IsNothingForOtherTensors) {
  for (const char* text :
       {"", ".", "lora_A.weight", "model.layers.0.mlp.up_proj.lora_A", "model.layers.0.mlp.up_proj.lora_B.bias",
        "model.layers.0.mlp.up_proj.lora_B.default.bias", "model.layers.0.mlp.up_proj.lora_A.a.b.weight",
        "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.base_layer.weight", "model.norm.weight",
        "model.layers.0.mlp.up_proj.lora_E", "lm_head.bias", "lm_head.x.weight", "v_head.summary.weight",
        "base_model.model.model.layers.0.mlp.up_proj.hada_w1_a"}) {
    EXPECT_FALSE(parse_adapter_tensor_name(text)) << text;
  }
}

}  // namespace
}  // namespace lorikeet::model
