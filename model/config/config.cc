#include "model/config/config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/config/config_keys.h"
#include "model/config/json_fields.h"
#include "model/config/quant_config.h"
#include "model/config/rope_config.h"
#include "model/config/strict_json.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr JsonLimits kConfigLimits{1u << 20, 32, 100'000};
constexpr int64_t kMaxWidth = 1 << 20;  // of any dimension but the vocabulary: far above 14B, far below overflow

// Reads whole numbers one after the other and keeps the first error.
class IntegerReader {
 public:
  explicit IntegerReader(const JsonFields& fields) : fields_(fields) {}

  void read(std::string_view key, int32_t& into, int64_t maximum) { keep(fields_.integer(key, 1, maximum), into); }
  void read_or(std::string_view key, int32_t& into, int64_t fallback, int64_t maximum) {
    keep(fields_.integer_or(key, fallback, 1, maximum), into);
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  void keep(const Result<int64_t>& value, int32_t& into) {
    if (!value && !error_) error_ = value.error();
    if (value) into = static_cast<int32_t>(*value);
  }

  const JsonFields& fields_;
  std::optional<Error> error_;
};

Result<Architecture> architecture_of(const JsonFields& fields) {
  const json* names = fields.find("architectures");
  if (names != nullptr && is_unset(*names)) names = nullptr;
  // transformers goes by model_type alone, and some tools leave the list out, or empty.
  if (const json* type = fields.find("model_type"); names == nullptr && type != nullptr) {
    if (*type == json("qwen2")) return Architecture::qwen2;
    if (*type == json("qwen3")) return Architecture::qwen3;
    if (*type == json("qwen")) return Architecture::qwen;
  }
  if (names == nullptr || !names->is_array() || names->size() != 1 || !(*names)[0].is_string()) {
    return fields.wrong("architectures", "must be a list of one name");
  }
  const auto name = (*names)[0].get<std::string>();
  for (const auto architecture : {Architecture::qwen2, Architecture::qwen3, Architecture::qwen}) {
    if (name == name_of(architecture)) return architecture;
  }
  return fields.wrong("architectures", "only Qwen2ForCausalLM, Qwen3ForCausalLM and QWenLMHeadModel are served");
}

// The window counts only where use_sliding_window is on, and then for layers from max_window_layers on.
Result<void> refuse_sliding_window(const JsonFields& fields, const ModelConfig& config) {
  auto used = fields.boolean_or("use_sliding_window", false);
  if (!used) return tl::unexpected(used.error());
  if (const json* types = fields.find("layer_types"); types != nullptr) {
    if (!types->is_array()) return fields.wrong("layer_types", "must be a list");
    for (const json& type : *types) {
      if (type != json("full_attention")) {
        return fields.wrong("layer_types", "only full_attention is served: sliding-window attention is not");
      }
    }
  }
  // null switches the window off; left out it is transformers' default of 4096.
  if (!*used || fields.is_null("sliding_window")) return {};
  auto first = fields.integer_or("max_window_layers", 28, 0, INT32_MAX);
  if (!first) return tl::unexpected(first.error());
  if (*first >= config.num_layers) return {};
  return fields.wrong("use_sliding_window", fmt::format("sliding-window attention (layers {} to {}) is not served",
                                                        *first, config.num_layers - 1));
}

Result<void> check_heads(const JsonFields& fields, const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return fail("{}: {} attention heads do not divide into {} KV heads", fields.where(), config.num_heads,
                config.num_kv_heads);
  }
  if (config.head_dim % 2 != 0) return fail("{}: head_dim {} is odd", fields.where(), config.head_dim);
  if (static_cast<int64_t>(config.num_heads) * config.head_dim > kMaxWidth) {
    return fail("{}: {} heads of {} are wider than {}", fields.where(), config.num_heads, config.head_dim, kMaxWidth);
  }
  return {};
}

Result<void> read_qwen2_or_3(const JsonFields& fields, ModelConfig& config) {
  IntegerReader integers(fields);
  integers.read("hidden_size", config.hidden_size, kMaxWidth);
  integers.read("num_hidden_layers", config.num_layers, 1024);
  integers.read("num_attention_heads", config.num_heads, 4096);
  integers.read("intermediate_size", config.intermediate_size, kMaxWidth);
  integers.read("vocab_size", config.vocab_size, 1 << 24);
  integers.read_or("max_position_embeddings", config.max_position_embeddings, 32768, 1 << 26);
  if (integers.error()) return tl::unexpected(*integers.error());
  integers.read_or("num_key_value_heads", config.num_kv_heads, config.num_heads, 4096);
  const bool qwen3 = config.architecture == Architecture::qwen3;
  if (!qwen3 && !fields.has("head_dim") && config.hidden_size % config.num_heads != 0) {
    return fail("{}: hidden_size {} does not divide by {} heads", fields.where(), config.hidden_size, config.num_heads);
  }
  integers.read_or("head_dim", config.head_dim, qwen3 ? 128 : config.hidden_size / config.num_heads, 4096);
  if (integers.error()) return tl::unexpected(*integers.error());

  auto activation = fields.string_or("hidden_act", "silu");
  auto eps = fields.number_or("rms_norm_eps", 1e-6, 1e-12, 1);
  auto tied = fields.boolean_or("tie_word_embeddings", false);
  auto bias = fields.boolean_or("attention_bias", false);
  if (!activation) return tl::unexpected(activation.error());
  if (!eps) return tl::unexpected(eps.error());
  if (!tied) return tl::unexpected(tied.error());
  if (!bias) return tl::unexpected(bias.error());
  if (*activation != "silu" && *activation != "swish") return fields.wrong("hidden_act", "only silu is served");
  if (qwen3 && *bias) return fields.wrong("attention_bias", "Qwen3 with biases is not served");
  config.rms_norm_eps = static_cast<float>(*eps);
  config.tie_word_embeddings = *tied;

  if (auto ok = refuse_sliding_window(fields, config); !ok) return ok;
  return read_rope(fields, config);
}

// v1 spells everything its own way, and its intermediate_size counts gate and up together.
Result<void> read_qwen(const JsonFields& fields, ModelConfig& config) {
  IntegerReader integers(fields);
  int32_t both = 0;
  integers.read("hidden_size", config.hidden_size, kMaxWidth);
  integers.read("num_hidden_layers", config.num_layers, 1024);
  integers.read("num_attention_heads", config.num_heads, 4096);
  integers.read("intermediate_size", both, 2 * kMaxWidth);
  integers.read("vocab_size", config.vocab_size, 1 << 24);
  integers.read("seq_length", config.seq_length, 1 << 26);
  if (integers.error()) return tl::unexpected(*integers.error());
  integers.read_or("max_position_embeddings", config.max_position_embeddings, config.seq_length, 1 << 26);
  if (!fields.has("kv_channels") && config.hidden_size % config.num_heads != 0) {
    return fail("{}: hidden_size {} does not divide by {} heads", fields.where(), config.hidden_size, config.num_heads);
  }
  integers.read_or("kv_channels", config.head_dim, config.hidden_size / config.num_heads, 4096);
  if (integers.error()) return tl::unexpected(*integers.error());
  config.num_kv_heads = config.num_heads;
  if (both % 2 != 0) return fields.wrong("intermediate_size", "must be even: it counts w1 and w2 together");
  config.intermediate_size = both / 2;
  if (static_cast<int64_t>(config.num_heads) * config.head_dim != config.hidden_size) {
    return fail("{}: {} heads of {} are not hidden_size {}", fields.where(), config.num_heads, config.head_dim,
                config.hidden_size);
  }

  auto eps = fields.number_or("layer_norm_epsilon", 1e-6, 1e-12, 1);
  auto theta = fields.number_or("rotary_emb_base", 10000, 1, 1e12);
  auto rotary_part = fields.number_or("rotary_pct", 1, 0, 1);
  if (!eps) return tl::unexpected(eps.error());
  if (!theta) return tl::unexpected(theta.error());
  if (!rotary_part) return tl::unexpected(rotary_part.error());
  config.rms_norm_eps = static_cast<float>(*eps);
  config.rope_theta = *theta;
  if (*rotary_part != 1) return fields.wrong("rotary_pct", "only 1.0 is served");

  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (fields.has(key)) return fields.wrong(key, "QWenLMHeadModel has use_dynamic_ntk in its place");
  }

  auto no_bias = fields.boolean_or("no_bias", true);
  auto ntk = fields.boolean_or("use_dynamic_ntk", true);
  auto logn = fields.boolean_or("use_logn_attn", true);
  auto tied = fields.boolean_or("tie_word_embeddings", false);
  auto scaled = fields.boolean_or("scale_attn_weights", true);
  auto cache = fields.boolean_or("use_cache_quantization", false);
  for (const auto* flag : {&no_bias, &ntk, &logn, &tied, &scaled, &cache}) {
    if (!*flag) return tl::unexpected(flag->error());
  }
  if (!*no_bias) return fields.wrong("no_bias", "biases beyond c_attn's are not served");
  if (!*scaled) return fields.wrong("scale_attn_weights", "unscaled attention is not served");
  if (*cache) return fields.wrong("use_cache_quantization", "a quantised KV cache is not served");
  config.use_dynamic_ntk = *ntk;
  config.use_logn_attn = *logn;
  config.tie_word_embeddings = *tied;
  if (!*ntk && !*logn) config.seq_length = 0;
  return {};
}

Result<void> read_eos(const json& object, const std::string& where, std::vector<int32_t>& ids) {
  const auto it = object.find("eos_token_id");
  if (it == object.end() || it->is_null()) return {};
  const json list = it->is_array() ? *it : json::array({*it});
  if (list.size() > 1024) return fail("{}: eos_token_id lists {} ids", where, list.size());
  for (const json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > INT32_MAX) {
      return fail("{}: eos_token_id = {}: must be an id or a list of ids", where, brief(*it));
    }
    ids.push_back(id.get<int32_t>());
  }
  return {};
}

}  // namespace

std::string_view name_of(Architecture architecture) {
  switch (architecture) {
    case Architecture::qwen2:
      return "Qwen2ForCausalLM";
    case Architecture::qwen3:
      return "Qwen3ForCausalLM";
    case Architecture::qwen:
      return "QWenLMHeadModel";
  }
  return "";
}

std::string_view name_of(QuantMethod method) {
  switch (method) {
    case QuantMethod::none:
      return "none";
    case QuantMethod::gptq:
      return "gptq";
    case QuantMethod::gptq_v2:
      return "gptq_v2";
    case QuantMethod::awq:
      return "awq";
    case QuantMethod::compressed_tensors:
      return "compressed-tensors";
  }
  return "";
}

Result<ModelConfig> parse_model_config(const json& object, const std::string& where) {
  const JsonFields fields(object, where);
  ModelConfig config;
  auto architecture = architecture_of(fields);
  if (!architecture) return tl::unexpected(architecture.error());
  config.architecture = *architecture;
  if (auto ok = refuse_unserved_keys(fields, object); !ok) return tl::unexpected(ok.error());
  auto read = config.architecture == Architecture::qwen ? read_qwen(fields, config) : read_qwen2_or_3(fields, config);
  if (!read) return tl::unexpected(read.error());
  if (auto ok = check_heads(fields, config); !ok) return tl::unexpected(ok.error());
  auto dtype = fields.string_or(fields.has("torch_dtype") ? "torch_dtype" : "dtype", "");
  if (!dtype) return tl::unexpected(dtype.error());
  config.torch_dtype = *dtype;
  return config;
}

Result<ModelConfig> read_model_config(const std::filesystem::path& dir) {
  const auto path = dir / "config.json";
  std::error_code error;
  if (!std::filesystem::is_directory(dir, error)) return fail("{}: no such directory", dir.string());
  if (!std::filesystem::exists(path, error)) return fail("{}: not a checkpoint: there is no config.json", dir.string());
  auto object = read_json_object(path, kConfigLimits);
  if (!object) return tl::unexpected(object.error());
  auto config = parse_model_config(*object, path.string());
  if (!config) return config;
  auto quant = read_quant_config(dir, *object);
  if (!quant) return tl::unexpected(quant.error());
  config->quant = *quant;
  config->dir = dir;
  return config;
}

Result<GenerationDefaults> read_generation_defaults(const std::filesystem::path& dir) {
  GenerationDefaults defaults;
  const auto path = dir / "generation_config.json";
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    auto object = read_json_object(path, kConfigLimits);
    if (!object) return tl::unexpected(object.error());
    const JsonFields fields(*object, path.string());
    const auto number = [&](std::string_view key, double minimum, double maximum,
                            std::optional<float>& into) -> Result<void> {
      if (!fields.has(key)) return {};
      auto value = fields.number(key, minimum, maximum);
      if (!value) return tl::unexpected(value.error());
      into = static_cast<float>(*value);
      return {};
    };
    if (auto ok = number("temperature", 0, 100, defaults.temperature); !ok) return tl::unexpected(ok.error());
    if (auto ok = number("top_p", 0, 1, defaults.top_p); !ok) return tl::unexpected(ok.error());
    if (auto ok = number("min_p", 0, 1, defaults.min_p); !ok) return tl::unexpected(ok.error());
    if (auto ok = number("repetition_penalty", 1e-3, 1e3, defaults.repetition_penalty); !ok) {
      return tl::unexpected(ok.error());
    }
    if (fields.has("top_k")) {
      auto top_k = fields.integer("top_k", -1, INT32_MAX);
      if (!top_k) return tl::unexpected(top_k.error());
      defaults.top_k = static_cast<int32_t>(*top_k);
    }
    if (fields.has("max_new_tokens")) {
      auto most = fields.integer("max_new_tokens", -1, INT64_MAX);
      if (!most) return tl::unexpected(most.error());
      if (*most > 0) defaults.max_new_tokens = static_cast<int32_t>(std::min<int64_t>(*most, INT32_MAX));
    }
    if (auto ok = read_eos(*object, path.string(), defaults.eos_token_ids); !ok) return tl::unexpected(ok.error());
    // Qwen v1's chat models end a turn with <|im_end|>, or by opening the next one; their code adds both to the eos id.
    auto chat_format = fields.string_or("chat_format", "");
    if (!chat_format) return tl::unexpected(chat_format.error());
    if (*chat_format == "chatml") defaults.eos_token_ids.insert(defaults.eos_token_ids.end(), {151645, 151644});
  }
  if (!std::filesystem::exists(dir / "config.json", error)) return defaults;
  auto object = read_json_object(dir / "config.json", kConfigLimits);
  if (!object) return tl::unexpected(object.error());
  // The file of another model has ids that this one does not know; then config.json is asked as if there was none.
  const auto vocabulary = object->find("vocab_size");
  if (vocabulary != object->end() && vocabulary->is_number_integer()) {
    std::erase_if(defaults.eos_token_ids, [size = vocabulary->get<int64_t>()](int32_t id) { return id >= size; });
  }
  if (defaults.eos_token_ids.empty()) {
    if (auto ok = read_eos(*object, (dir / "config.json").string(), defaults.eos_token_ids); !ok) {
      return tl::unexpected(ok.error());
    }
  }
  return defaults;
}

}  // namespace lorikeet::model
