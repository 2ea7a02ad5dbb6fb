// The list of what the writers of these models' files put there: what is read, what changes nothing, what is refused.
#include "model/config/config_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/config/config.h"
#include "tests/temp_dir.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

std::string error_of(const json& object) {
  const auto ok = refuse_unserved_keys(JsonFields(object, "config.json"), object);
  return ok ? "" : ok.error().message;
}

// As transformers' save_pretrained writes them, with the keys that fine-tuners leave.
TEST(ConfigKeys, OfPublishedModelsChangeNothing) {
  for (
      const char* text :
      {// Qwen2.5-14B-Instruct-GPTQ-Int4
       R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
            "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02, "intermediate_size": 13824,
            "max_position_embeddings": 32768, "max_window_layers": 70, "model_type": "qwen2", "num_attention_heads": 40,
            "num_hidden_layers": 48, "num_key_value_heads": 8, "quantization_config": {"bits": 4}, "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false, "torch_dtype": "float16",
            "transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false, "vocab_size": 152064})",
       // DeepSeek-R1-Distill-Qwen-14B, fine-tuned
       R"({"use_mrope": false, "pad_token_id": 151643, "_name_or_path": "x", "_attn_implementation_autoset": true,
            "unsloth_fixed": true, "unsloth_version": "2025.1.1", "pretraining_tp": 1, "id2label": {"0": "LABEL_0"}})",
       // Qwen3-14B of transformers 5
       R"({"attention_bias": false, "head_dim": 128, "layer_types": ["full_attention"], "rope_parameters": {"rope_theta": 1e6},
            "dtype": "bfloat16", "sliding_window": null, "rope_scaling": null, "cache_implementation": "hybrid",
            "base_model": "somebody/something", "license": "apache-2.0"})",
       // Qwen-14B-Chat
       R"({"attn_dropout_prob": 0.0, "auto_map": {"AutoConfig": "c"}, "bf16": false, "emb_dropout_prob": 0.0, "fp16": true,
            "fp32": false, "kv_channels": 128, "layer_norm_epsilon": 1e-06, "no_bias": true, "onnx_safe": null,
            "rotary_emb_base": 10000, "rotary_pct": 1.0, "scale_attn_weights": true, "seq_length": 2048,
            "tokenizer_class": "QWenTokenizer", "use_cache": true, "use_dynamic_ntk": true, "use_flash_attn": "auto",
            "use_logn_attn": true, "use_cache_quantization": false, "use_cache_kernel": false, "softmax_in_fp32": false})",
       // Settings for generation, which transformers kept here before generation_config.json.
       R"({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "max_length": 20, "do_sample": true,
            "num_beams": 1, "bad_words_ids": null, "is_encoder_decoder": false, "pruned_heads": {}, "chunk_size_feed_forward": 0})",
       R"({"max_new_tokens": 512, "min_p": 0.1, "penalty_alpha": 0.6, "num_logits_to_keep": 0, "loss_type": "ForCausalLMLoss",
            "dropout": 0.1, "hidden_dropout_prob": 0.1, "num_experts": 0, "num_nextn_predict_layers": 0, "is_causal": true})",
       // The only value that is served
       R"({"activation": "swiglu", "position_embedding_type": "rope", "qkv_bias": true, "residual_multiplier": 1.0})"}) {
    EXPECT_EQ(error_of(json::parse(text)), "") << text;
  }
}

TEST(ConfigKeys, ThatChangeWhatIsComputedAreRefusedByName) {
  struct Case {
    const char* key;
    json value;
    const char* reason;
  };
  for (const Case& c :
       std::vector<Case>{{"dual_chunk_attention_config", {{"chunk_size", 262144}}, "dual chunk attention"},
                         {"sparse_attention_config", {{"x", 1}}, "sparse attention"},
                         {"attn_logit_softcapping", 50.0, "capped attention scores"},
                         {"final_logit_softcapping", 30.0, "capped logits"},
                         {"query_pre_attn_scalar", 256, "scale of the attention scores"},
                         {"mlp_bias", true, "biases in the MLP"},
                         {"use_qk_norm", true, "norms of queries and keys"},
                         {"attn_output_gate", true, "gated attention"},
                         {"num_experts", 64, "mixtures of experts"},
                         {"num_nextn_predict_layers", 1, "further tokens"},
                         {"is_encoder_decoder", true, "only decoders"},
                         {"pruned_heads", {{"0", {1}}}, "pruned heads"},
                         {"use_mrope", true, "RoPE over several axes"},
                         {"vision_config", {{"depth", 32}}, "only text models"},
                         {"quantization", {{"bits", 4}}, "MLX"},
                         {"residual_multiplier", 0.5, "only 1.0 is served"},
                         {"position_embedding_type", "alibi", "only \"rope\" is served"},
                         {"qkv_bias", 3, "only true is served"},
                         {"is_causal", false, "only true is served"},
                         {"use_rope", false, "only true is served"},
                         {"attention_kind", "linear", "unknown setting"},
                         {"some_new_switch", true, "unknown setting"},
                         {"some_new_factor", 0.5, "unknown setting"},
                         {"some_new_config", {{"x", 1}}, "unknown setting"}}) {
    EXPECT_THAT(error_of({{c.key, c.value}}), AllOf(HasSubstr("config.json: "), HasSubstr(c.key), HasSubstr(c.reason)));
  }
  for (const json& off : std::vector<json>{nullptr, false, "", json::array(), json::object()}) {
    EXPECT_EQ(error_of({{"some_new_switch", off}, {"dual_chunk_attention_config", off}}), "") << off;
  }
}

TEST(ConfigKeys, AreCheckedWhenAModelIsRead) {
  const json object = {{"architectures", {"Qwen3ForCausalLM"}},
                       {"hidden_size", 64},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 4},
                       {"intermediate_size", 64},
                       {"vocab_size", 64},
                       {"hidden_act", "swish"}};
  EXPECT_TRUE(parse_model_config(object, "config.json"));
  json chunked = object;
  chunked["dual_chunk_attention_config"] = {{"chunk_size", 262144}, {"local_size", 8192}};
  EXPECT_THAT(parse_model_config(chunked, "config.json").error().message, HasSubstr("dual_chunk_attention_config"));
}

}  // namespace
}  // namespace lorikeet::model
