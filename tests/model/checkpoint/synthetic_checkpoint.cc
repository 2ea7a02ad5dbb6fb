#include "tests/model/checkpoint/synthetic_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace lorikeet::tests {
namespace {

using model::Architecture;
using model::Projection;
using model::QuantMethod;

int32_t ceil_div(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}

// Values of 4 or 8 bits into words: a word gets values[order[i]] as its field i.
constexpr int kInOrder[8] = {0, 1, 2, 3, 4, 5, 6, 7};
constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

// Sizes (random_float) with which activations and logits stay around 1, so that what goes wrong anywhere shows in them.
constexpr int32_t kNormPower = 6, kDensePower = 3, kBiasPower = 4;

uint32_t pack(const uint8_t* values, const int* order, int32_t bits = 4) {
  uint32_t word = 0;
  for (int32_t i = 0; i < 32 / bits; ++i) word |= static_cast<uint32_t>(values[order[i]]) << (bits * i);
  return word;
}

}  // namespace

SyntheticCheckpoint::SyntheticCheckpoint(const SyntheticOptions& options) : options_(options), random_(options.seed) {
  const bool v1 = options_.architecture == Architecture::qwen;
  const auto matrix = [&](const std::string& name, int32_t power) {
    return Matrix{options_.vocab, options_.hidden, add_floats(name, {options_.vocab, options_.hidden}, power)};
  };
  embedding_ =
      matrix(v1 ? "transformer.wte.weight" : "model.embed_tokens.weight", options_.tied ? kDensePower : kNormPower);
  if (!options_.tied) {
    lm_head_ = options_.quantised_head ? add_quantised("lm_head", options_.vocab, options_.hidden)
                                       : matrix("lm_head.weight", kDensePower);
  }
  for (int32_t layer = 0; layer < options_.layers; ++layer) add_layer(layer);
  const std::string last = v1 ? "transformer.ln_f.weight" : "model.norm.weight";
  norms_[last] = add_floats(last, {options_.hidden}, kNormPower);
  write();
  write_config();
}

const Matrix& SyntheticCheckpoint::weight(int32_t layer, Projection p) const {
  return weights_.at({layer, p});
}
const std::vector<double>& SyntheticCheckpoint::bias(int32_t layer, Projection p) const {
  return biases_.at({layer, p});
}

// A float of +-2^(power - 7) to +-2^(power - 5) in the file's type, from its bits.
double SyntheticCheckpoint::random_float(const std::string& dtype, int32_t power, std::vector<uint8_t>& bytes) {
  const uint32_t bits = random_();
  const double sign = bits >> 31 != 0 ? -1 : 1;
  const auto push = [&](uint32_t value, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  if (dtype == "F16") {
    const uint32_t fraction = bits & 0x3ff, exponent = static_cast<uint32_t>(8 + power) + (bits >> 10 & 1);
    push(bits >> 31 << 15 | exponent << 10 | fraction, 2);
    return sign * std::ldexp(1 + fraction / 1024.0, static_cast<int>(exponent) - 15);
  }
  if (dtype == "BF16") {
    const uint32_t fraction = bits & 0x7f, exponent = static_cast<uint32_t>(120 + power) + (bits >> 10 & 1);
    push(bits >> 31 << 15 | exponent << 7 | fraction, 2);
    return sign * std::ldexp(1 + fraction / 128.0, static_cast<int>(exponent) - 127);
  }
  const uint32_t fraction = bits & 0x7fffff, exponent = static_cast<uint32_t>(120 + power) + (bits >> 24 & 1);
  push(bits >> 31 << 31 | exponent << 23 | fraction, 4);
  return sign * std::ldexp(1 + fraction / 8388608.0, static_cast<int>(exponent) - 127);
}

std::vector<double> SyntheticCheckpoint::add_floats(const std::string& name, const std::vector<int64_t>& shape,
                                                    int32_t power) {
  return add_floats(name, shape, power, options_.float_dtype);
}

std::vector<double> SyntheticCheckpoint::add_floats(const std::string& name, const std::vector<int64_t>& shape,
                                                    int32_t power, const std::string& dtype) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  std::vector<uint8_t> bytes;
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(random_float(dtype, power, bytes));
  tensors_.add(name, dtype, shape, bytes);
  return values;
}

bool SyntheticCheckpoint::is_dense(const std::string& name) const {
  return options_.method == QuantMethod::none ||
         std::any_of(options_.dense.begin(), options_.dense.end(),
                     [&](const std::string& suffix) { return name.ends_with(suffix); });
}

SyntheticOverride SyntheticCheckpoint::settings_of(const std::string& name) const {
  SyntheticOverride settings{name, options_.bits, options_.group_size};
  for (const SyntheticOverride& other : options_.overrides) {
    if (name.ends_with(other.suffix)) settings = {name, other.bits, other.group_size};
  }
  return settings;
}

Matrix SyntheticCheckpoint::add_module(const std::string& name, int32_t outputs, int32_t inputs) {
  if (!is_dense(name)) return add_quantised(name, outputs, inputs);
  return {outputs, inputs, add_floats(name + ".weight", {outputs, inputs}, kDensePower)};
}

SyntheticCheckpoint::Integers SyntheticCheckpoint::random_integers(const std::string& name, int32_t outputs,
                                                                   int32_t inputs) {
  const SyntheticOverride settings = settings_of(name);
  const int32_t group = settings.group_size < 0 ? inputs : settings.group_size;
  const auto values = uint32_t{1} << settings.bits;
  Integers of{outputs, inputs, settings.bits, ceil_div(inputs, group), {}, {}, {}};
  for (int32_t k = 0; k < inputs; ++k) of.group_of.push_back(k / group);
  if (options_.act_order) std::shuffle(of.group_of.begin(), of.group_of.end(), random_);
  of.q.resize(of.at(inputs, 0));
  for (uint8_t& value : of.q) value = static_cast<uint8_t>(random_() % values);
  of.z.assign(of.at(of.groups, 0), static_cast<uint8_t>(values / 2));
  if (options_.symmetric) return of;
  const bool has_no_zero = options_.method == QuantMethod::gptq;  // version 1 stores one less
  for (uint8_t& value : of.z) {
    value = static_cast<uint8_t>(has_no_zero ? 1 + random_() % (values - 1) : random_() % values);
  }
  return of;
}

void SyntheticCheckpoint::add_compressed_tensors(const std::string& name, const Integers& of) {
  const int32_t each = of.per_word(), row = ceil_div(of.inputs, each), zero_rows = ceil_div(of.outputs, each);
  std::vector<uint32_t> words, zero_words;
  for (int32_t n = 0; n < of.outputs; ++n) {
    for (int32_t w = 0; w < row; ++w) {
      uint8_t eight[8] = {};
      for (int32_t i = 0; i < each && each * w + i < of.inputs; ++i) eight[i] = of.q[of.at(each * w + i, n)];
      words.push_back(pack(eight, kInOrder, of.bits));
    }
  }
  tensors_.add(name + ".weight_packed", "I32", {of.outputs, row}, words);
  tensors_.add(name + ".weight_shape", "I64", {2}, std::vector<int64_t>{of.outputs, of.inputs});
  if (!options_.symmetric) {
    for (int32_t r = 0; r < zero_rows; ++r) {
      for (int32_t g = 0; g < of.groups; ++g) {
        uint8_t eight[8] = {};
        for (int32_t i = 0; i < each && each * r + i < of.outputs; ++i) eight[i] = of.z[of.at(g, each * r + i)];
        zero_words.push_back(pack(eight, kInOrder, of.bits));
      }
    }
    tensors_.add(name + ".weight_zero_point", "I32", {zero_rows, of.groups}, zero_words);
  }
  if (options_.act_order) tensors_.add(name + ".weight_g_idx", "I32", {of.inputs}, of.group_of);
}

void SyntheticCheckpoint::add_awq(const std::string& name, const Integers& of) {
  const auto packed = [&](const std::vector<uint8_t>& values, int32_t rows) {
    std::vector<uint32_t> words;
    for (int32_t row = 0; row < rows; ++row) {
      for (int32_t n = 0; n < of.outputs; n += 8) words.push_back(pack(&values[of.at(row, n)], kAwqOrder));
    }
    return words;
  };
  tensors_.add(name + ".qweight", "I32", {of.inputs, of.outputs / 8}, packed(of.q, of.inputs));
  tensors_.add(name + ".qzeros", "I32", {of.groups, of.outputs / 8}, packed(of.z, of.groups));
}

void SyntheticCheckpoint::add_gptq(const std::string& name, const Integers& of) {
  const int32_t each = of.per_word(),
                less = options_.method == QuantMethod::gptq ? 1 : 0;  // than the zero, in version 1
  std::vector<uint32_t> words, zero_words;
  for (int32_t k = 0; k < of.inputs; k += each) {
    for (int32_t n = 0; n < of.outputs; ++n) {
      uint8_t eight[8];
      for (int32_t i = 0; i < each; ++i) eight[i] = of.q[of.at(k + i, n)];
      words.push_back(pack(eight, kInOrder, of.bits));
    }
  }
  for (int32_t g = 0; g < of.groups; ++g) {
    for (int32_t n = 0; n < of.outputs; n += each) {
      uint8_t eight[8];
      for (int32_t i = 0; i < each; ++i) eight[i] = static_cast<uint8_t>(of.z[of.at(g, n + i)] - less);
      zero_words.push_back(pack(eight, kInOrder, of.bits));
    }
  }
  tensors_.add(name + ".qweight", "I32", {of.inputs / each, of.outputs}, words);
  tensors_.add(name + ".g_idx", "I32", {of.inputs}, of.group_of);
  tensors_.add(name + ".qzeros", "I32", {of.groups, of.outputs / each}, zero_words);
}

Matrix SyntheticCheckpoint::add_quantised(const std::string& name, int32_t outputs, int32_t inputs) {
  const Integers of = random_integers(name, outputs, inputs);
  const bool by_output = options_.method == QuantMethod::compressed_tensors;  // scales [outputs, groups]
  const std::string& scale_dtype = options_.scale_dtype.empty() ? options_.float_dtype : options_.scale_dtype;
  const int32_t scale_power = of.bits == 8 ? -4 : 0;  // weights of the same size
  const std::vector<double> scales =
      by_output ? add_floats(name + ".weight_scale", {outputs, of.groups}, scale_power, scale_dtype)
                : add_floats(name + ".scales", {of.groups, outputs}, scale_power, scale_dtype);
  switch (options_.method) {
    case QuantMethod::compressed_tensors:
      add_compressed_tensors(name, of);
      break;
    case QuantMethod::awq:
      add_awq(name, of);
      break;
    default:
      add_gptq(name, of);
  }
  Matrix w{outputs, inputs, std::vector<double>(of.at(inputs, 0))};
  for (int32_t n = 0; n < outputs; ++n) {
    for (int32_t k = 0; k < inputs; ++k) {
      const int32_t g = of.group_of[static_cast<size_t>(k)];
      const size_t scale =
          by_output ? static_cast<size_t>(n) * static_cast<size_t>(of.groups) + static_cast<size_t>(g) : of.at(g, n);
      w.at(n, k) = scales[scale] * (of.q[of.at(k, n)] - of.z[of.at(g, n)]);
    }
  }
  return w;
}

void SyntheticCheckpoint::add_layer(int32_t layer) {
  const auto& o = options_;
  const int32_t q_size = o.heads * o.head_dim, kv_size = o.kv_heads * o.head_dim;
  const bool v1 = o.architecture == Architecture::qwen;
  const std::string prefix = (v1 ? "transformer.h." : "model.layers.") + std::to_string(layer) + ".";
  const auto add_norm = [&](const std::string& name, int32_t size) {
    norms_[prefix + name] = add_floats(prefix + name, {size}, kNormPower);
  };
  const auto add = [&](const std::string& name, Projection p, int32_t outputs, int32_t inputs, bool has_bias) {
    weights_[{layer, p}] = add_module(prefix + name, outputs, inputs);
    bits_[{layer, p}] = is_dense(prefix + name) ? 32 : settings_of(prefix + name).bits;
    biases_[{layer, p}] = {};
    if (has_bias) {
      biases_[{layer, p}] = add_floats(prefix + name + ".bias", {outputs}, kBiasPower);
    } else if (o.zero_biases) {
      tensors_.add(prefix + name + ".bias", "F16", {outputs}, std::vector<uint16_t>(static_cast<size_t>(outputs), 0));
    }
  };
  add_norm(v1 ? "ln_1.weight" : "input_layernorm.weight", o.hidden);
  add_norm(v1 ? "ln_2.weight" : "post_attention_layernorm.weight", o.hidden);
  if (v1) {
    const Matrix fused = add_module(prefix + "attn.c_attn", q_size + 2 * kv_size, o.hidden);
    const std::vector<double> bias = add_floats(prefix + "attn.c_attn.bias", {q_size + 2 * kv_size}, kBiasPower);
    int32_t row = 0;
    for (const Projection p : {Projection::q, Projection::k, Projection::v}) {
      const int32_t rows = p == Projection::q ? q_size : kv_size;
      const auto values = fused.values.begin() + static_cast<ptrdiff_t>(row) * o.hidden;
      weights_[{layer, p}] = {rows, o.hidden, {values, values + static_cast<ptrdiff_t>(rows) * o.hidden}};
      biases_[{layer, p}] = {bias.begin() + row, bias.begin() + row + rows};
      bits_[{layer, p}] = is_dense(prefix + "attn.c_attn") ? 32 : settings_of(prefix + "attn.c_attn").bits;
      row += rows;
    }
    add("attn.c_proj", Projection::o, o.hidden, q_size, false);
    add("mlp.w2", Projection::gate, o.intermediate, o.hidden, false);
    add("mlp.w1", Projection::up, o.intermediate, o.hidden, false);
    add("mlp.c_proj", Projection::down, o.hidden, o.intermediate, false);
    return;
  }
  const bool qwen3 = o.architecture == Architecture::qwen3;
  if (qwen3) {
    add_norm("self_attn.q_norm.weight", o.head_dim);
    add_norm("self_attn.k_norm.weight", o.head_dim);
  }
  add("self_attn.q_proj", Projection::q, q_size, o.hidden, !qwen3);
  add("self_attn.k_proj", Projection::k, kv_size, o.hidden, !qwen3);
  add("self_attn.v_proj", Projection::v, kv_size, o.hidden, !qwen3);
  add("self_attn.o_proj", Projection::o, o.hidden, q_size, false);
  add("mlp.gate_proj", Projection::gate, o.intermediate, o.hidden, false);
  add("mlp.up_proj", Projection::up, o.intermediate, o.hidden, false);
  add("mlp.down_proj", Projection::down, o.hidden, o.intermediate, false);
}

void SyntheticCheckpoint::write() const {
  if (options_.shards == 1) {
    tensors_.write(dir_ / "model.safetensors");
    return;
  }
  std::string map;
  for (size_t part = 0; part < options_.shards; ++part) {
    const std::string name = "model-" + std::to_string(part) + ".safetensors";
    const SafetensorsWriter shard = tensors_.shard(part, options_.shards);
    shard.write(dir_ / name);
    for (const auto& tensor : shard.names()) map += (map.empty() ? "\"" : ",\"") + tensor + "\":\"" + name + "\"";
  }
  write_file(dir_ / "model.safetensors.index.json", "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}");
}

void SyntheticCheckpoint::write_config(const std::string& extra) const {
  write_config_with(quantisation_text() + extra);
}

void SyntheticCheckpoint::write_config_with(const std::string& quantisation) const {
  const auto& o = options_;
  const auto number = [](const char* key, int64_t value) {
    return ", \"" + std::string(key) + "\": " + std::to_string(value);
  };
  std::string text;
  if (o.architecture == Architecture::qwen) {
    text =
        R"({"architectures": ["QWenLMHeadModel"], "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "no_bias": true)" +
        number("kv_channels", o.head_dim) + number("seq_length", o.seq_length) +
        number("intermediate_size", 2 * o.intermediate);
  } else {
    text = o.architecture == Architecture::qwen3 ? R"({"architectures": ["Qwen3ForCausalLM"])"
                                                 : R"({"architectures": ["Qwen2ForCausalLM"])";
    text += R"(, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0)" +
            number("head_dim", o.head_dim) + number("num_key_value_heads", o.kv_heads) +
            number("intermediate_size", o.intermediate);
  }
  text += number("hidden_size", o.hidden) + number("num_hidden_layers", o.layers) +
          number("num_attention_heads", o.heads) + number("vocab_size", o.vocab) +
          number("max_position_embeddings", 4096) + ", \"tie_word_embeddings\": " + (o.tied ? "true" : "false");
  write_file(dir_ / "config.json", text + quantisation + "}");
}

// What the tool that writes the method's checkpoints says of them.
std::string SyntheticCheckpoint::quantisation_text() const {
  const auto& o = options_;
  std::string text;
  const std::string group = std::to_string(o.group_size), symmetric = o.symmetric ? "true" : "false",
                    bits = std::to_string(o.bits);
  switch (o.method) {
    case QuantMethod::none:
      break;
    case QuantMethod::gptq:
    case QuantMethod::gptq_v2:
      text += R"(, "quantization_config": {"quant_method": "gptq", "bits": )" + bits + ", \"group_size\": " + group +
              ", \"sym\": " + symmetric + ", \"desc_act\": " + (o.act_order ? "true" : "false") +
              (o.method == QuantMethod::gptq_v2 ? R"(, "checkpoint_format": "gptq_v2"})" : "}");
      break;
    case QuantMethod::awq:
      text +=
          R"(, "quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": true, "group_size": )" +
          group + "}";
      break;
    case QuantMethod::compressed_tensors:
      text +=
          R"(, "quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": )" +
          bits + R"(, "type": "int", "symmetric": )" + symmetric +
          (o.group_size < 0 ? std::string(R"(, "strategy": "channel")")
                            : R"(, "strategy": "group", "group_size": )" + group) +
          (o.act_order ? R"(, "actorder": "group")" : "") + "}}}}";
      break;
  }
  return text;
}

model::ShardPlan plan_of(const std::filesystem::path& dir, int size) {
  auto config = model::read_model_config(dir);
  if (!config) throw std::runtime_error(config.error().message);
  auto plan = model::ShardPlan::make(*config, size);
  if (!plan) throw std::runtime_error(plan.error().message);
  return *plan;
}

}  // namespace lorikeet::tests
