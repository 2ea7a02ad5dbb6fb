#include <cmath>
#include <cstring>
#include <memory>

#include "model/checkpoint/int4_repack.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::model {
namespace {

// splitmix64: a value depends on its place in the whole model alone, so ranks that share a tensor agree.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

class Source {
 public:
  Source(uint64_t seed, int32_t layer, int kind)
      : key_(mix(seed ^ mix(static_cast<uint64_t>(layer + 1) * 64 + static_cast<uint64_t>(kind)))) {}

  uint64_t word(uint64_t index) const { return mix(key_ ^ index); }
  float uniform(uint64_t index) const { return static_cast<float>(word(index) >> 40) * 0x1p-23F - 1; }  // [-1, 1)

 private:
  uint64_t key_;
};

enum OtherKind : int { kEmbedding = kNumProjections, kHead, kBias };

uint16_t to_bf16(float value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

// bf16, uniform in [-bound, bound).
kernels::DenseWeight dense(const Source& source, Range rows, Range columns, int32_t all_columns, float bound) {
  auto values =
      std::make_shared<std::vector<uint16_t>>(static_cast<size_t>(rows.size()) * static_cast<size_t>(columns.size()));
  size_t i = 0;
  for (int32_t n = rows.begin; n < rows.end; ++n) {
    for (int32_t k = columns.begin; k < columns.end; ++k) {
      const uint64_t index = static_cast<uint64_t>(n) * static_cast<uint64_t>(all_columns) + static_cast<uint64_t>(k);
      (*values)[i++] = to_bf16(bound * source.uniform(index));
    }
  }
  return {rows.size(), columns.size(), kernels::Dtype::bf16, values->data(), values};
}

kernels::Int4Weight int4(const Source& source, Range rows, Range columns, int32_t all_columns, int32_t group_size) {
  std::vector<int32_t> groups(static_cast<size_t>(columns.size()));
  for (int32_t k = 0; k < columns.size(); ++k) groups[static_cast<size_t>(k)] = (columns.begin + k) / group_size;
  RunLayout layout = layout_runs(groups);
  kernels::Int4Weight w;
  w.n = rows.size();
  w.k = static_cast<int32_t>(layout.source.size());
  w.x_size = columns.size();
  w.run_begin = layout.run_begin;
  const size_t values = layout.run_group.size() * static_cast<size_t>(w.n);
  // Values 0 .. 15 around 8 have a deviation of 4.6; outputs then have about that of the inputs.
  w.scale.assign(values, 1 / (4.6F * std::sqrt(static_cast<float>(all_columns))));
  w.zero.assign(values, 8);
  w.q.assign(static_cast<size_t>(w.n) * static_cast<size_t>(w.k / 2), 0x88);
  const uint64_t row_words = (static_cast<uint64_t>(all_columns) + 15) / 16;  // words of 16 values
  const bool whole_words = layout.plain && columns.begin % 16 == 0 && w.k % 16 == 0;
  for (int32_t n = 0; n < w.n; ++n) {
    uint8_t* row = w.q.data() + static_cast<size_t>(n) * static_cast<size_t>(w.k / 2);
    const uint64_t first = static_cast<uint64_t>(rows.begin + n) * row_words;
    if (whole_words) {
      for (int32_t i = 0; i < w.k / 16; ++i) {
        const uint64_t word = source.word(first + static_cast<uint64_t>(columns.begin / 16 + i));
        std::memcpy(row + static_cast<size_t>(i) * 8, &word, 8);
      }
      continue;
    }
    for (int32_t k = 0; k < w.k; ++k) {
      const int32_t from = layout.source[static_cast<size_t>(k)];
      if (from < 0) continue;
      const auto column = static_cast<uint64_t>(columns.begin + from);
      const auto value = static_cast<uint8_t>(source.word(first + column / 16) >> (column % 16 * 4) & 15);
      uint8_t& byte = row[k / 2];
      byte = static_cast<uint8_t>(k % 2 == 0 ? (byte & 0xf0) | value : (byte & 0x0f) | value << 4);
    }
  }
  if (!layout.plain) w.permutation = std::move(layout.source);
  return w;
}

}  // namespace

RankWeights make_dummy_rank_weights(const ShardPlan& plan, int rank, uint64_t seed) {
  const ModelConfig& config = plan.config();
  const Range hidden = {0, config.hidden_size};
  RankWeights weights;
  weights.embedding = dense(Source(seed, -1, kEmbedding), {0, config.vocab_size}, hidden, config.hidden_size, 1);
  const float head_bound = 4 / std::sqrt(static_cast<float>(config.hidden_size));
  if (config.tie_word_embeddings) {
    weights.lm_head = weights.embedding;
    weights.lm_head.n = plan.shard(rank).vocab.size();
    weights.lm_head.data = weights.embedding.row(plan.shard(rank).vocab.begin);
  } else {
    weights.lm_head = dense(Source(seed, -1, kHead), plan.shard(rank).vocab, hidden, config.hidden_size, head_bound);
  }
  weights.final_norm.assign(static_cast<size_t>(config.hidden_size), 1);
  weights.layers.resize(static_cast<size_t>(config.num_layers));
  for (int32_t i = 0; i < config.num_layers; ++i) {
    LayerWeights& layer = weights.layers[static_cast<size_t>(i)];
    layer.input_norm = layer.post_attention_norm = weights.final_norm;
    if (config.architecture == Architecture::qwen3) {
      layer.q_norm.assign(static_cast<size_t>(config.head_dim), 1);
      layer.k_norm = layer.q_norm;
    }
    for (const Projection p : kProjections) {
      const Source source(seed, i, static_cast<int>(p));
      const int32_t inputs = input_size(config, p);
      const Range rows = plan.outputs(p, rank), columns = plan.inputs(p, rank);
      if (config.quant.method == QuantMethod::none) {
        layer.at(p).weight = dense(source, rows, columns, inputs, 1.7F / std::sqrt(static_cast<float>(inputs)));
      } else {
        const int32_t group_size = config.quant.group_size < 0 ? inputs : config.quant.group_size;
        layer.at(p).weight = int4(source, rows, columns, inputs, group_size);
      }
      if (config.architecture != Architecture::qwen3 &&
          (p == Projection::q || p == Projection::k || p == Projection::v)) {
        const Source bias(seed, i, kBias + static_cast<int>(p));
        for (int32_t n = rows.begin; n < rows.end; ++n) {
          layer.at(p).bias.push_back(0.1F * bias.uniform(static_cast<uint64_t>(n)));
        }
      }
    }
  }
  weights.bytes = bytes_of(weights, config.tie_word_embeddings);
  return weights;
}

}  // namespace lorikeet::model
