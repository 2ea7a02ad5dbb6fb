// config.json (and generation_config.json) of a checkpoint, checked. Sources: transformers' configuration_qwen2.py and
// configuration_qwen3.py; AutoGPTQ's quantize_config.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::model {

enum class Architecture : uint8_t {
  qwen2,  // Qwen1.5, Qwen2, Qwen2.5
  qwen3,
  qwen,  // v1: QWenLMHeadModel
};
enum class QuantMethod : uint8_t { none, gptq, gptq_v2, awq, compressed_tensors };

std::string_view name_of(Architecture architecture);  // "Qwen2ForCausalLM"
std::string_view name_of(QuantMethod method);         // "gptq"

// What the configuration says of the quantisation. The shapes of a module's tensors decide where they say otherwise:
// single modules may have other bits and groups, or none.
struct QuantConfig {
  QuantMethod method = QuantMethod::none;
  int32_t bits = 4;          // 4 or 8
  int32_t group_size = 128;  // inputs per group; -1: one group over all inputs
  bool desc_act = false;     // informational: g_idx decides
  bool symmetric = true;     // the stored zeros decide; where they contradict a stated `sym`, the file is mislabelled
  bool symmetric_is_stated = false;
};

struct YarnScaling {
  float factor = 1;
  int32_t original_max_position_embeddings = 0;
  float beta_fast = 32, beta_slow = 1;
  bool truncate = true;        // the ramp between the frequencies begins and ends at whole dimensions
  float attention_factor = 1;  // multiplies cos and sin

  bool operator==(const YarnScaling&) const = default;
};

struct ModelConfig {
  Architecture architecture = Architecture::qwen2;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t intermediate_size = 0;
  int32_t vocab_size = 0;
  int32_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-6F;
  double rope_theta = 1e6;
  std::optional<YarnScaling> yarn;
  // Qwen v1, beyond the trained length `seq_length`: dynamic NTK (one base per sequence, from its prompt's length) and
  // log-n scaling of the queries. seq_length 0: neither.
  bool use_dynamic_ntk = false;
  bool use_logn_attn = false;
  int32_t seq_length = 0;
  bool tie_word_embeddings = false;
  std::string torch_dtype;
  QuantConfig quant;
  std::filesystem::path dir;  // where the checkpoint is; empty in configurations made by hand
};

// What generation_config.json sets; requests fall back to it, then to the neutral value.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
  std::optional<int32_t> max_new_tokens;  // of an answer that no request bounds
  std::vector<int32_t> eos_token_ids;     // of the vocabulary; from generation_config.json, else config.json
};

// Reads DIR/config.json (and the files of quantisers beside it). Errors name the file, the key and the value.
Result<ModelConfig> read_model_config(const std::filesystem::path& dir);

// The same from a parsed config.json, without its quantisation; `where` names it in errors.
Result<ModelConfig> parse_model_config(const nlohmann::json& object, const std::string& where);

// Reads DIR/generation_config.json; a missing file gives the eos ids of config.json and no defaults.
Result<GenerationDefaults> read_generation_defaults(const std::filesystem::path& dir);

}  // namespace lorikeet::model
