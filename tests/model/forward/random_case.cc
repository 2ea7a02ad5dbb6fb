#include "tests/model/forward/random_case.h"

#include <algorithm>
#include <cmath>

namespace lorikeet::tests {
namespace {

using model::Architecture;
using model::LoraPair;
using model::Projection;
using model::QuantMethod;

constexpr double kOutputAlpha = 0.25;  // of the attention's output projection

ReferenceModel::Rows rows_of(const Matrix& matrix) {
  ReferenceModel::Rows rows;
  for (int32_t r = 0; r < matrix.rows; ++r) {
    const auto begin = matrix.values.begin() + static_cast<std::ptrdiff_t>(r) * matrix.columns;
    rows.emplace_back(begin, begin + matrix.columns);
  }
  return rows;
}

}  // namespace

RandomCase::RandomCase(uint32_t seed) : random_(seed) {
  options_.seed = random_();
  choose_shape();
  choose_quantisation();
  choose_positions();
  checkpoint_ = std::make_unique<SyntheticCheckpoint>(options_);
  checkpoint_->write_config(extra_);
  const auto& o = options_;
  description_ = fmt::format(
      "case {}: {}, {} layers, hidden {}, {} heads of {}, {} KV heads, MLP {}, vocabulary {}, {} int{} in groups of "
      "{}{}{}{}{}, "
      "{} and {}{}{}",
      seed, model::name_of(o.architecture), o.layers, o.hidden, o.heads, o.head_dim, o.kv_heads, o.intermediate,
      o.vocab, model::name_of(o.method), o.bits, o.group_size, o.act_order ? ", act-order" : "",
      o.symmetric ? "" : ", asymmetric", o.dense.empty() ? "" : ", partly", o.overrides.empty() ? "" : ", mixed",
      o.float_dtype, o.scale_dtype, o.tied ? ", tied" : "", extra_);
  write_adapter();
}

int32_t RandomCase::pick(std::initializer_list<int32_t> values) {
  return values.begin()[pick_below(static_cast<int32_t>(values.size()))];
}

void RandomCase::choose_shape() {
  auto& o = options_;
  o.architecture = static_cast<Architecture>(pick_below(3));
  const bool v1 = o.architecture == Architecture::qwen;
  o.heads = pick({1, 2, 4, 8, 8});
  o.kv_heads = v1 ? o.heads : o.heads >> pick_below(4);
  o.kv_heads = std::max(o.kv_heads, 1);
  o.head_dim = pick({4, 8, 16});
  o.hidden = v1 ? o.heads * o.head_dim : 8 * (1 + pick_below(10));
  if (v1 && o.hidden % 8 != 0) o.head_dim = 8, o.hidden = o.heads * 8;
  o.intermediate = 8 * (1 + pick_below(20));
  o.layers = 1 + pick_below(2);
  o.vocab = 11 + pick_below(80);
  o.tied = chance(30);
  o.shards = static_cast<size_t>(1 + pick_below(3));
}

void RandomCase::choose_quantisation() {
  auto& o = options_;
  o.method = static_cast<QuantMethod>(pick_below(5));
  o.group_size = pick({-1, 8, 16, 32, 40});
  if (o.method == QuantMethod::none && o.architecture != Architecture::qwen) {  // whatever sizes there are
    o.hidden = 5 + pick_below(60);
    o.intermediate = 8 + pick_below(100);
  }
  if (o.heads * o.head_dim % 8 != 0 || o.kv_heads * o.head_dim % 8 != 0) {  // words of 8 outputs
    o.head_dim = 8;
    if (o.architecture == Architecture::qwen) o.hidden = o.heads * 8;
  }
  if (o.method == QuantMethod::awq && o.group_size > 0) {  // whole groups
    o.group_size = 8;
  }
  o.act_order = o.method != QuantMethod::none && o.method != QuantMethod::awq && chance(40);
  o.symmetric = o.method != QuantMethod::awq && chance(50);
  const std::vector<std::string> types = {"F16", "BF16", "F32"};
  o.float_dtype = types[static_cast<size_t>(pick_below(3))];
  o.scale_dtype = types[static_cast<size_t>(pick_below(3))];
  o.zero_biases = chance(30);
  if (chance(30)) o.dense = {o.architecture == Architecture::qwen ? "mlp.c_proj" : "down_proj", ".0.self_attn.q_proj"};
  if (o.method != QuantMethod::none && o.method != QuantMethod::awq) {
    if (chance(30)) o.bits = 8;
    if (chance(20)) o.overrides = {{o.architecture == Architecture::qwen ? "mlp.w1" : "up_proj", 12 - o.bits, 16}};
  }

  config_.architecture = o.architecture;
  config_.hidden_size = o.hidden;
  config_.num_layers = o.layers;
  config_.num_heads = o.heads;
  config_.num_kv_heads = o.kv_heads;
  config_.head_dim = o.head_dim;
  config_.intermediate_size = o.intermediate;
  config_.vocab_size = o.vocab;
  config_.rms_norm_eps = 1e-6F;
  config_.tie_word_embeddings = o.tied;
}

void RandomCase::choose_positions() {
  if (options_.architecture == Architecture::qwen) {
    options_.seq_length = 8 + pick_below(30);
    config_.seq_length = options_.seq_length;
    config_.use_dynamic_ntk = chance(70);
    config_.use_logn_attn = chance(70);
    config_.rope_theta = 10000;
    extra_ =
        fmt::format(R"(, "use_dynamic_ntk": {}, "use_logn_attn": {})", config_.use_dynamic_ntk, config_.use_logn_attn);
    return;
  }
  config_.rope_theta = 1e6;
  if (!chance(40)) return;
  model::YarnScaling yarn;
  yarn.factor = static_cast<float>(pick({2, 3, 4}));
  yarn.original_max_position_embeddings = chance(50) ? 8 + pick_below(60) : 300 + pick_below(8000);
  yarn.truncate = chance(60);
  const bool is_given = chance(50);
  yarn.attention_factor = is_given ? 0.75F : static_cast<float>(0.1 * std::log(yarn.factor) + 1);
  extra_ = fmt::format(R"(, "rope_scaling": {{"rope_type": "yarn", "factor": {}, "truncate": {}{},)", yarn.factor,
                       yarn.truncate, is_given ? R"(, "attention_factor": 0.75)" : "") +
           fmt::format(R"("original_max_position_embeddings": {}}})", yarn.original_max_position_embeddings);
  config_.yarn = yarn;
}

ReferenceModel::Weights RandomCase::weights() const {
  const bool v1 = options_.architecture == Architecture::qwen, qwen3 = options_.architecture == Architecture::qwen3;
  ReferenceModel::Weights weights;
  weights.embedding = rows_of(checkpoint_->embedding());
  weights.lm_head = rows_of(checkpoint_->lm_head());
  weights.final_norm = checkpoint_->norm(v1 ? "transformer.ln_f.weight" : "model.norm.weight");
  for (int32_t i = 0; i < options_.layers; ++i) {
    const auto norm = [&](const std::string& name) {
      return checkpoint_->norm((v1 ? "transformer.h." : "model.layers.") + std::to_string(i) + "." + name + ".weight");
    };
    ReferenceModel::Layer layer;
    layer.input_norm = norm(v1 ? "ln_1" : "input_layernorm");
    layer.post_attention_norm = norm(v1 ? "ln_2" : "post_attention_layernorm");
    if (qwen3) {
      layer.q_norm = norm("self_attn.q_norm");
      layer.k_norm = norm("self_attn.k_norm");
    }
    for (const Projection p : model::kProjections) {
      layer.linear.push_back({rows_of(checkpoint_->weight(i, p)), checkpoint_->bias(i, p)});
    }
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

std::vector<int> RandomCase::sizes() const {
  std::vector<int> sizes;
  for (const int size : {1, 2, 4, 8}) {
    if (options_.heads % size == 0) sizes.push_back(size);
  }
  return sizes;
}

std::vector<int32_t> RandomCase::prompt() {
  std::vector<int32_t> ids;
  for (int32_t size = 20 + pick_below(60); size > 0; --size) ids.push_back(pick_below(options_.vocab));
  return ids;
}

void RandomCase::write_adapter() {
  adapter_ = std::make_unique<SyntheticAdapter>(random_());
  adapter_->config = plain_adapter_config(1 + pick_below(9), 0.1 * (1 + pick_below(3)), {});
  auto& config = adapter_->config;
  config["use_rslora"] = chance(40);
  config["use_dora"] = chance(40);
  const bool v1 = options_.architecture == Architecture::qwen;
  const std::string attention = v1 ? "attn." : "self_attn.", last = v1 ? "c_proj" : "o_proj";
  // By their last two names, as Qwen v1's c_proj is in the attention and in the MLP.
  config["rank_pattern"] = {{attention + last, 1 + pick_below(12)}, {"mlp\\..*", 1 + pick_below(5)}};
  config["alpha_pattern"] = {{attention + last, kOutputAlpha}};

  pairs_.layers.resize(static_cast<size_t>(options_.layers));
  const int32_t only_layer = chance(30) ? pick_below(options_.layers) : -1;
  const int percent = pick({20, 60, 100});
  const int32_t q = options_.heads * options_.head_dim, kv = options_.kv_heads * options_.head_dim;
  const int32_t hidden = options_.hidden, mlp = options_.intermediate;
  struct Module {
    std::string name;
    int32_t inputs, outputs;
    std::vector<Projection> projections;
  };
  std::vector<Module> modules;
  if (v1) {
    modules = {{"attn.c_attn", hidden, q + 2 * kv, {Projection::q, Projection::k, Projection::v}},
               {"attn.c_proj", q, hidden, {Projection::o}},
               {"mlp.w2", hidden, mlp, {Projection::gate}},
               {"mlp.w1", hidden, mlp, {Projection::up}},
               {"mlp.c_proj", mlp, hidden, {Projection::down}}};
  } else {
    modules = {{"self_attn.q_proj", hidden, q, {Projection::q}},   {"self_attn.k_proj", hidden, kv, {Projection::k}},
               {"self_attn.v_proj", hidden, kv, {Projection::v}},  {"self_attn.o_proj", q, hidden, {Projection::o}},
               {"mlp.gate_proj", hidden, mlp, {Projection::gate}}, {"mlp.up_proj", hidden, mlp, {Projection::up}},
               {"mlp.down_proj", mlp, hidden, {Projection::down}}};
  }
  std::vector<std::string> targets;
  for (int32_t layer = 0; layer < options_.layers; ++layer) {
    if (only_layer >= 0 && layer != only_layer) continue;
    for (const Module& module : modules) {
      if (!chance(percent) && !(targets.empty() && &module == &modules.back())) continue;
      const std::string name = (v1 ? "transformer.h." : "model.layers.") + std::to_string(layer) + "." + module.name;
      targets.push_back(name);
      add_pair(name, module.inputs, module.outputs, module.projections, layer);
    }
  }
  if (config["use_dora"] == false) {
    for (const std::string& name :
         {std::string("lm_head"), std::string(v1 ? "transformer.wte" : "model.embed_tokens")}) {
      if (!chance(30)) continue;
      targets.push_back(name);
      add_outer_pair(name);
    }
  }
  config["target_modules"] = targets;
  adapter_->write();
  description_ += fmt::format("; adapter {}", config.dump());
}

LoraPair RandomCase::new_pair(const std::string& module, int32_t inputs, int32_t outputs) {
  const auto& config = adapter_->config;
  LoraPair pair;
  pair.rank = config["r"].get<int32_t>();
  double alpha = config["lora_alpha"].get<double>();
  if (module.ends_with("attn.c_proj") || module.ends_with("attn.o_proj")) {
    pair.rank = config["rank_pattern"].front().get<int32_t>();
    alpha = kOutputAlpha;
  } else if (module.find(".mlp.") != std::string::npos) {
    pair.rank = config["rank_pattern"].back().get<int32_t>();
  }
  pair.scale = static_cast<float>(alpha / (config["use_rslora"] == true ? std::sqrt(pair.rank) : pair.rank));
  pair.inputs = inputs;
  pair.outputs = outputs;
  return pair;
}

void RandomCase::add_pair(const std::string& module, int32_t inputs, int32_t outputs,
                          const std::vector<Projection>& projections, int32_t layer) {
  LoraPair whole = new_pair(module, inputs, outputs);
  const auto [a, b] = adapter_->add_pair(module, whole.rank, inputs, outputs);
  std::vector<float> magnitude;
  if (adapter_->config["use_dora"] == true)
    magnitude = adapter_->add_vector(module + ".lora_magnitude_vector", outputs);
  int32_t row = 0;
  for (const Projection p : projections) {
    LoraPair pair = whole;
    pair.outputs = projections.size() == 1 ? outputs : outputs / 3;  // Qwen v1: as many of q, k and v
    pair.a = a;
    const auto rows = [&](const std::vector<float>& from, int32_t width) {
      const auto begin = from.begin() + static_cast<std::ptrdiff_t>(row) * width;
      return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(pair.outputs) * width);
    };
    pair.b = rows(b, pair.rank);
    if (!magnitude.empty()) pair.magnitude = rows(magnitude, 1);
    row += pair.outputs;
    pairs_.layers[static_cast<size_t>(layer)][static_cast<size_t>(p)] = std::move(pair);
  }
}

void RandomCase::add_outer_pair(const std::string& module) {
  const bool is_head = module == "lm_head";
  LoraPair pair =
      is_head ? new_pair(module, options_.hidden, options_.vocab) : new_pair(module, options_.vocab, options_.hidden);
  pair.a = adapter_->add_matrix(module + (is_head ? ".lora_A.weight" : ".lora_embedding_A"), pair.rank, pair.inputs);
  pair.b = adapter_->add_matrix(module + (is_head ? ".lora_B.weight" : ".lora_embedding_B"), pair.outputs, pair.rank);
  (is_head ? pairs_.lm_head : pairs_.embedding) = std::move(pair);
}

}  // namespace lorikeet::tests
