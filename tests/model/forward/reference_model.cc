#include "tests/model/forward/reference_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lorikeet::tests {
namespace {

using model::LoraPair;
using model::Projection;
using Rows = std::vector<std::vector<double>>;

Rows values_of(const kernels::DenseWeight& w) {
  Rows rows(static_cast<size_t>(w.n));
  for (int32_t n = 0; n < w.n; ++n) {
    for (int32_t k = 0; k < w.k; ++k) {
      rows[static_cast<size_t>(n)].push_back(kernels::load_float(w.row(n), w.dtype, static_cast<size_t>(k)));
    }
  }
  return rows;
}

Rows values_of(const kernels::Int4View& w) {
  Rows rows(static_cast<size_t>(w.n), std::vector<double>(static_cast<size_t>(w.x_size)));
  for (int32_t n = 0; n < w.n; ++n) {
    int32_t run = 0;
    for (int32_t k = 0; k < w.k; ++k) {
      if (k == w.run_begin[static_cast<size_t>(run) + 1]) ++run;
      const int32_t input = w.permutation.empty() ? k : w.permutation[static_cast<size_t>(k)];
      if (input < 0) continue;
      const uint8_t byte = w.q[static_cast<size_t>(n) * static_cast<size_t>(w.k / 2) + static_cast<size_t>(k / 2)];
      const auto at = static_cast<size_t>(run) * static_cast<size_t>(w.n) + static_cast<size_t>(n);
      rows[static_cast<size_t>(n)][static_cast<size_t>(input)] =
          static_cast<double>(w.scale[at]) * ((k % 2 == 0 ? byte & 15 : byte >> 4) - w.zero[at]);
    }
  }
  return rows;
}

std::vector<double> doubles(const std::vector<float>& x) {
  return {x.begin(), x.end()};
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// scale * (B A) of one pair.
Rows delta_of(const LoraPair& pair) {
  const auto rank = static_cast<size_t>(pair.rank), inputs = static_cast<size_t>(pair.inputs);
  Rows delta(static_cast<size_t>(pair.outputs), std::vector<double>(inputs));
  for (size_t n = 0; n < delta.size(); ++n) {
    for (size_t r = 0; r < rank; ++r) {
      for (size_t k = 0; k < inputs; ++k) {
        delta[n][k] += static_cast<double>(pair.scale) * pair.b[n * rank + r] * pair.a[r * inputs + k];
      }
    }
  }
  return delta;
}

}  // namespace

ReferenceModel::ReferenceModel(const model::ModelConfig& config, Weights weights)
    : config_(config), weights_(std::move(weights)) {}

ReferenceModel::ReferenceModel(const model::ModelConfig& config, const model::RankWeights& weights)
    : config_(config),
      weights_{values_of(weights.embedding), values_of(weights.lm_head), doubles(weights.final_norm), {}} {
  for (const model::LayerWeights& from : weights.layers) {
    Layer layer{
        doubles(from.input_norm), doubles(from.post_attention_norm), doubles(from.q_norm), doubles(from.k_norm), {}};
    for (const Projection p : model::kProjections) {
      layer.linear.push_back(
          {std::visit([](const auto& w) { return values_of(w); }, from.at(p).weight), doubles(from.at(p).bias)});
    }
    weights_.layers.push_back(std::move(layer));
  }
}

Rows ReferenceModel::project(const Linear& linear, const LoraPair* pair, const Rows& x) const {
  Rows weight = linear.weight;
  if (pair != nullptr) {
    const Rows delta = delta_of(*pair);
    for (size_t n = 0; n < weight.size(); ++n) {
      for (size_t k = 0; k < weight[n].size(); ++k) weight[n][k] += delta[n][k];
      if (pair->magnitude.empty()) continue;
      const double factor = pair->magnitude[n] / std::sqrt(dot(weight[n], weight[n]));
      for (double& w : weight[n]) w *= factor;
    }
  }
  Rows y;
  for (const auto& row : x) {
    y.emplace_back();
    for (size_t n = 0; n < weight.size(); ++n) {
      y.back().push_back(dot(weight[n], row) + (linear.bias.empty() ? 0 : linear.bias[n]));
    }
  }
  return y;
}

Rows ReferenceModel::normed(const Rows& x, const std::vector<double>& weight) const {
  Rows y = x;
  for (auto& row : y) {
    const double factor = 1 / std::sqrt(dot(row, row) / static_cast<double>(row.size()) + config_.rms_norm_eps);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= factor * weight[i];
  }
  return y;
}

// What a position turns each pair of a head's values by.
std::vector<double> ReferenceModel::frequencies(size_t prompt_size) const {
  const double dim = config_.head_dim;
  double base = config_.rope_theta;
  if (config_.use_dynamic_ntk) {
    // The least 2^m - 1 that stretches the trained length over the prompt.
    double alpha = 1;
    for (double reach = config_.seq_length; reach < static_cast<double>(prompt_size); reach *= 2) alpha = 2 * alpha + 1;
    base *= std::pow(alpha, dim / (dim - 2));
  }
  std::vector<double> result;
  for (double i = 0; i < dim / 2; ++i) result.push_back(std::pow(base, -2 * i / dim));
  if (!config_.yarn) return result;
  const model::YarnScaling& yarn = *config_.yarn;
  // The dimension that turns so often over the trained length.
  const auto dimension = [&](double turns) {
    return dim * std::log(yarn.original_max_position_embeddings / (turns * 2 * std::acos(-1.0))) / (2 * std::log(base));
  };
  double low = dimension(yarn.beta_fast), high = dimension(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < result.size(); ++i) {
    const double slow = std::min(std::max((static_cast<double>(i) - low) / (high - low), 0.0), 1.0);
    result[i] = result[i] / yarn.factor * slow + result[i] * (1 - slow);
  }
  return result;
}

// Norm (where there is one) and rotation of every head.
void ReferenceModel::shape_heads(Rows& x, int32_t heads, const std::vector<double>& norm, size_t prompt_size) const {
  const auto dim = static_cast<size_t>(config_.head_dim), half = dim / 2;
  const std::vector<double> frequency = frequencies(prompt_size);
  const double factor = config_.yarn ? config_.yarn->attention_factor : 1;
  for (size_t position = 0; position < x.size(); ++position) {
    for (size_t h = 0; h < static_cast<size_t>(heads); ++h) {
      const auto begin = x[position].begin() + static_cast<std::ptrdiff_t>(h * dim);
      std::vector<double> head(begin, begin + static_cast<std::ptrdiff_t>(dim));
      if (!norm.empty()) head = normed({head}, norm)[0];
      for (size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * frequency[i];
        const double cosine = factor * std::cos(angle), sine = factor * std::sin(angle);
        x[position][h * dim + i] = head[i] * cosine - head[half + i] * sine;
        x[position][h * dim + half + i] = head[half + i] * cosine + head[i] * sine;
      }
    }
  }
}

Rows ReferenceModel::attention(const Layer& layer, const model::LoraLayer* lora, const Rows& x,
                               size_t prompt_size) const {
  const auto at = [&](Projection p) {
    const auto i = static_cast<size_t>(p);
    return project(layer.linear[i], lora != nullptr && (*lora)[i] ? &*(*lora)[i] : nullptr, x);
  };
  Rows q = at(Projection::q), k = at(Projection::k);
  const Rows v = at(Projection::v);
  shape_heads(q, config_.num_heads, layer.q_norm, prompt_size);
  shape_heads(k, config_.num_kv_heads, layer.k_norm, prompt_size);
  for (size_t i = 0; config_.use_logn_attn && i < q.size(); ++i) {
    const double seen = static_cast<double>(i) + 1, trained = config_.seq_length;
    for (double& value : q[i]) value *= seen > trained ? std::log(seen) / std::log(trained) : 1;
  }
  const auto dim = static_cast<size_t>(config_.head_dim);
  const auto group = static_cast<size_t>(config_.num_heads / config_.num_kv_heads);
  Rows mixed(x.size(), std::vector<double>(static_cast<size_t>(config_.num_heads) * dim));
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t h = 0; h < static_cast<size_t>(config_.num_heads); ++h) {
      const size_t kv = h / group * dim;
      std::vector<double> weights;
      double total = 0;
      for (size_t j = 0; j <= i; ++j) {
        double score = 0;
        for (size_t d = 0; d < dim; ++d) score += q[i][h * dim + d] * k[j][kv + d];
        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
        total += weights.back();
      }
      for (size_t j = 0; j <= i; ++j) {
        for (size_t d = 0; d < dim; ++d) mixed[i][h * dim + d] += weights[j] / total * v[j][kv + d];
      }
    }
  }
  return mixed;
}

Rows ReferenceModel::logits(const std::vector<int32_t>& ids, const model::Adapter* adapter, size_t prompt_size) const {
  Rows x;
  for (const int32_t id : ids) {
    x.push_back(weights_.embedding[static_cast<size_t>(id)]);
    if (adapter == nullptr || !adapter->embedding) continue;
    const Rows delta = delta_of(*adapter->embedding);  // [hidden, vocab]
    for (size_t i = 0; i < x.back().size(); ++i) x.back()[i] += delta[i][static_cast<size_t>(id)];
  }
  const auto add = [&](const Rows& delta) {
    for (size_t i = 0; i < x.size(); ++i) {
      for (size_t j = 0; j < x[i].size(); ++j) x[i][j] += delta[i][j];
    }
  };
  for (size_t l = 0; l < weights_.layers.size(); ++l) {
    const Layer& layer = weights_.layers[l];
    const model::LoraLayer* lora = adapter == nullptr ? nullptr : &adapter->layers[l];
    const auto through = [&](Projection p, const Rows& in) {
      const auto i = static_cast<size_t>(p);
      return project(layer.linear[i], lora != nullptr && (*lora)[i] ? &*(*lora)[i] : nullptr, in);
    };
    add(through(Projection::o, attention(layer, lora, normed(x, layer.input_norm), prompt_size)));
    const Rows in = normed(x, layer.post_attention_norm);
    Rows gate = through(Projection::gate, in);
    const Rows up = through(Projection::up, in);
    for (size_t i = 0; i < gate.size(); ++i) {
      for (size_t j = 0; j < gate[i].size(); ++j) gate[i][j] = gate[i][j] / (1 + std::exp(-gate[i][j])) * up[i][j];
    }
    add(through(Projection::down, gate));
  }
  return project({weights_.lm_head, {}}, adapter != nullptr && adapter->lm_head ? &*adapter->lm_head : nullptr,
                 normed(x, weights_.final_norm));
}

}  // namespace lorikeet::tests
