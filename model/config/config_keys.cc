#include "model/config/config_keys.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace lorikeet::model {
namespace {

using nlohmann::json;

// Read by config.cc, rope_config.cc and quant_config.cc.
constexpr std::array<std::string_view, 38> kRead = {"architectures",
                                                    "attention_bias",
                                                    "compression_config",
                                                    "dtype",
                                                    "eos_token_id",
                                                    "head_dim",
                                                    "hidden_act",
                                                    "hidden_size",
                                                    "intermediate_size",
                                                    "kv_channels",
                                                    "layer_norm_epsilon",
                                                    "layer_types",
                                                    "max_position_embeddings",
                                                    "max_window_layers",
                                                    "no_bias",
                                                    "num_attention_heads",
                                                    "num_hidden_layers",
                                                    "num_key_value_heads",
                                                    "original_max_position_embeddings",
                                                    "partial_rotary_factor",
                                                    "quantization_config",
                                                    "rms_norm_eps",
                                                    "rope_parameters",
                                                    "rope_scaling",
                                                    "rope_theta",
                                                    "rotary_emb_base",
                                                    "rotary_pct",
                                                    "scale_attn_weights",
                                                    "seq_length",
                                                    "sliding_window",
                                                    "tie_word_embeddings",
                                                    "torch_dtype",
                                                    "use_cache_quantization",
                                                    "use_dynamic_ntk",
                                                    "use_logn_attn",
                                                    "use_sliding_window",
                                                    "vocab_size",
                                                    "model_type"};

// Training, the runtime of others, token ids (the tokenizer and generation_config.json have them), labels.
constexpr std::array kHarmlessKeys = {"architecture",
                                      "attention_dropout",
                                      "attention_probs_dropout_prob",
                                      "attn_dropout_prob",
                                      "attn_implementation",
                                      "attn_pdrop",
                                      "auto_map",
                                      "begin_suppress_tokens",
                                      "bf16",
                                      "bias_dropout_fusion",
                                      "bos_token_id",
                                      "cache_implementation",
                                      "chunk_size_feed_forward",
                                      "classifier_dropout",
                                      "decoder_start_token_id",
                                      "diversity_penalty",
                                      "do_sample",
                                      "dropout",
                                      "early_stopping",
                                      "emb_dropout_prob",
                                      "embd_pdrop",
                                      "encoder_no_repeat_ngram_size",
                                      "encoder_repetition_penalty",
                                      "epsilon_cutoff",
                                      "eta_cutoff",
                                      "exponential_decay_length_penalty",
                                      "finetuning_task",
                                      "forced_bos_token_id",
                                      "forced_eos_token_id",
                                      "fp16",
                                      "fp32",
                                      "gradient_checkpointing",
                                      "hidden_dropout",
                                      "hidden_dropout_prob",
                                      "id2label",
                                      "initializer_range",
                                      "is_decoder",
                                      "label2id",
                                      "layerdrop",
                                      "length_penalty",
                                      "logits_to_keep",
                                      "loss_type",
                                      "max_length",
                                      "max_new_tokens",
                                      "max_time",
                                      "min_length",
                                      "min_new_tokens",
                                      "min_p",
                                      "model_max_length",
                                      "neftune_noise_alpha",
                                      "no_repeat_ngram_size",
                                      "num_beam_groups",
                                      "num_beams",
                                      "num_labels",
                                      "num_logits_to_keep",
                                      "num_return_sequences",
                                      "onnx_safe",
                                      "output_attentions",
                                      "output_hidden_states",
                                      "output_router_logits",
                                      "output_scores",
                                      "pad_token_id",
                                      "padded_vocab_size",
                                      "penalty_alpha",
                                      "pretraining_tp",
                                      "problem_type",
                                      "remove_invalid_values",
                                      "renormalize_logits",
                                      "repetition_penalty",
                                      "resid_pdrop",
                                      "return_dict",
                                      "return_dict_in_generate",
                                      "sep_token_id",
                                      "softmax_in_fp32",
                                      "suppress_tokens",
                                      "task_specific_params",
                                      "temperature",
                                      "tf_legacy_loss",
                                      "token_healing",
                                      "tokenizer_class",
                                      "tokenizer_type",
                                      "top_k",
                                      "top_p",
                                      "torchscript",
                                      "transformers.js_config",
                                      "typical_p",
                                      "unk_token_id",
                                      "use_bfloat16",
                                      "use_cache",
                                      "use_cache_kernel",
                                      "use_flash_attention_2",
                                      "use_flash_attn"};

// The only value that is served.
struct Only {
  const char* key;
  const char* value;  // JSON
};
constexpr std::array kOnly = {
    Only{"activation", "\"swiglu\""},   Only{"pos_emb", "\"rotary\""}, Only{"position_embedding_type", "\"rope\""},
    Only{"norm_type", "\"rmsnorm\""},   Only{"qkv_bias", "true"},      Only{"embedding_multiplier", "1.0"},
    Only{"residual_multiplier", "1.0"}, Only{"logits_scaling", "1.0"}, Only{"logit_scale", "1.0"},
};

// Off, these too change what is computed.
constexpr std::array kAlwaysOn = {"causal",     "causal_attention",     "is_causal",
                                  "rotary",     "use_causal_mask",      "use_rope",
                                  "use_rotary", "use_rotary_embedding", "use_rotary_embeddings"};

struct RefusedKey {
  const char* key;
  const char* reason;
};
constexpr std::array kRefusedKeys = {
    RefusedKey{"dual_chunk_attention_config", "dual chunk attention is not served"},
    RefusedKey{"sparse_attention_config", "sparse attention is not served"},
    RefusedKey{"attn_logit_softcapping", "capped attention scores are not served"},
    RefusedKey{"final_logit_softcapping", "capped logits are not served"},
    RefusedKey{"query_pre_attn_scalar", "another scale of the attention scores is not served"},
    RefusedKey{"mlp_bias", "biases in the MLP are not served"},
    RefusedKey{"use_qk_norm", "norms of queries and keys are served of Qwen3 alone"},
    RefusedKey{"attn_output_gate", "gated attention is not served"},
    RefusedKey{"num_experts", "mixtures of experts are not served"},
    RefusedKey{"num_nextn_predict_layers", "layers that predict further tokens are not served"},
    RefusedKey{"is_encoder_decoder", "only decoders are served"},
    RefusedKey{"add_cross_attention", "cross-attention is not served"},
    RefusedKey{"pruned_heads", "pruned heads are not served"},
    RefusedKey{"apply_residual_connection_post_layernorm", "residuals taken behind the norm are not served"},
    RefusedKey{"use_mrope", "RoPE over several axes is not served"},
    RefusedKey{"vision_config", "only text models are served"},
    RefusedKey{"visual", "only text models are served"},
    RefusedKey{"text_config", "only text models are served, with their settings at the top"},
    RefusedKey{"quantization", "MLX's quantisation is not served"},
};

template <class List>
bool holds(const List& list, std::string_view key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

// A word that nobody reads is a note too, unless it chooses how something is computed.
bool is_remark(std::string_view key, const json& value) {
  if (!value.is_string()) return false;
  constexpr std::array kParts = {"act",  "attn", "attention", "bias",     "cache", "embed", "expert", "layer", "logit",
                                 "mask", "mlp",  "norm",      "position", "quant", "rope",  "rotary", "scal",  "type"};
  return std::none_of(kParts.begin(), kParts.end(), [&](const char* part) { return key.find(part) != key.npos; });
}

}  // namespace

bool is_note(std::string_view key) {
  return key.substr(0, 1) == "_" || key.ends_with("_version") || key.substr(0, 8) == "unsloth_";
}

Result<void> refuse_unserved_keys(const JsonFields& fields, const json& object) {
  for (const auto& item : object.items()) {
    const std::string& key = item.key();
    const json& value = item.value();
    if (value.is_boolean() && holds(kAlwaysOn, key)) {
      if (value.get<bool>()) continue;
      return fields.wrong(key, "only true is served");
    }
    if (is_unset(value) || holds(kRead, key) || holds(kHarmlessKeys, key) || is_note(key)) continue;
    const auto only = std::find_if(kOnly.begin(), kOnly.end(), [&](const Only& o) { return key == o.key; });
    if (only != kOnly.end()) {
      if (value == json::parse(only->value)) continue;
      return fields.wrong(key, fmt::format("only {} is served", only->value));
    }
    const auto known =
        std::find_if(kRefusedKeys.begin(), kRefusedKeys.end(), [&](const RefusedKey& r) { return key == r.key; });
    if (known != kRefusedKeys.end() && value == json(0)) continue;  // none of them
    if (known != kRefusedKeys.end()) return fields.wrong(key, known->reason);
    if (is_remark(key, value)) continue;
    return fields.wrong(key, "unknown setting, which may change what the model computes");
  }
  return {};
}

}  // namespace lorikeet::model
