#include "model/checkpoint/weights.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "model/checkpoint/in_parallel.h"
#include "model/checkpoint/linear_loader.h"
#include "model/checkpoint/servable_checkpoint.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

Result<LayerWeights> load_layer(const ServableCheckpoint& servable, const ShardPlan& plan, int rank, int32_t layer,
                                EightBit eight_bit) {
  const Checkpoint& checkpoint = servable.checkpoint;
  const ModelConfig& config = servable.config;
  LayerWeights weights;
  for (const NormKind kind : norms_of(config)) {
    auto norm = load_vector(checkpoint, norm_name(config, layer, kind) + ".weight", norm_size(config, kind));
    if (!norm) return tl::unexpected(norm.error());
    weights.norm(kind) = std::move(*norm);
  }
  for (const Projection p : kProjections) {
    auto linear = load_linear(checkpoint, config, plan, rank, layer, p, eight_bit);
    if (!linear) return tl::unexpected(linear.error());
    weights.at(p) = std::move(*linear);
  }
  return weights;
}

Result<void> load_outer(const ServableCheckpoint& servable, const ShardPlan& plan, int rank, RankWeights& weights) {
  const Checkpoint& checkpoint = servable.checkpoint;
  const ModelConfig& config = servable.config;
  const auto matrix = [&](const std::string& name, Range rows) {
    return load_matrix(checkpoint, name + ".weight", config.vocab_size, config.hidden_size, rows);
  };
  auto embedding = matrix(embedding_name(config), {0, config.vocab_size});
  if (!embedding) return tl::unexpected(embedding.error());
  weights.embedding = std::move(*embedding);
  const Range vocab = plan.shard(rank).vocab;
  if (config.tie_word_embeddings) {
    if (auto ok = check_tied_head(checkpoint, config); !ok) return ok;
    weights.lm_head = weights.embedding;
    weights.lm_head.n = vocab.size();
    weights.lm_head.data = weights.embedding.row(vocab.begin);
  } else {
    auto head = load_head(checkpoint, config, vocab);
    if (!head) return tl::unexpected(head.error());
    weights.lm_head = std::move(*head);
  }
  auto norm = load_vector(checkpoint, final_norm_name(config) + ".weight", config.hidden_size);
  if (!norm) return tl::unexpected(norm.error());
  weights.final_norm = std::move(*norm);
  return {};
}

uint64_t bytes_of(const std::vector<float>& values) {
  return values.size() * sizeof(float);
}

uint64_t bytes_of(const kernels::DenseWeight& w) {
  return static_cast<uint64_t>(w.n) * static_cast<uint64_t>(w.k) * kernels::size_of(w.dtype);
}

uint64_t bytes_of(const kernels::Int4View& w) {
  return w.q.size() + w.scale.size_bytes() + w.zero.size() + w.run_begin.size_bytes() + w.permutation.size_bytes();
}

class CheckpointWeights final : public WeightSource {
 public:
  CheckpointWeights(ServableCheckpoint servable, const ShardPlan& plan, int rank, EightBit eight_bit)
      : servable_(std::move(servable)), plan_(plan), rank_(rank), eight_bit_(eight_bit) {}

  Result<RankWeights> outer() const override {
    RankWeights weights;
    if (auto ok = load_outer(servable_, plan_, rank_, weights); !ok) return tl::unexpected(ok.error());
    return weights;
  }

  Result<LayerWeights> layer(int32_t layer) const override {
    return load_layer(servable_, plan_, rank_, layer, eight_bit_);
  }

 private:
  const ServableCheckpoint servable_;
  const ShardPlan plan_;
  const int rank_;
  const EightBit eight_bit_;
};

Result<std::unique_ptr<WeightSource>> open_source(const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                                  EightBit eight_bit) {
  auto servable = open_servable(dir, plan.config());
  if (!servable) return tl::unexpected(servable.error());
  return std::make_unique<CheckpointWeights>(*std::move(servable), plan, rank, eight_bit);
}

// Weights on the heap.
class InMemory final : public WeightSink {
 public:
  explicit InMemory(const ModelConfig& config) : config_(config) {
    weights_.layers.resize(static_cast<size_t>(config.num_layers));
  }

  Result<void> put_outer(RankWeights outer) override {
    outer.layers = std::move(weights_.layers);
    weights_ = std::move(outer);
    return {};
  }

  Result<void> put_layer(int32_t layer, LayerWeights weights) override {
    weights_.layers[static_cast<size_t>(layer)] = std::move(weights);
    return {};
  }

  RankWeights take() {
    weights_.bytes = bytes_of(weights_, config_.tie_word_embeddings);
    return std::move(weights_);
  }

 private:
  const ModelConfig& config_;
  RankWeights weights_;
};

}  // namespace

std::optional<kernels::Int4View> LinearWeights::int4() const {
  if (const auto* own = std::get_if<kernels::Int4Weight>(&weight)) return *own;
  if (const auto* view = std::get_if<kernels::Int4View>(&weight)) return *view;
  return std::nullopt;
}

uint64_t bytes_of(const RankWeights& weights, bool tied) {
  uint64_t bytes = bytes_of(weights.embedding) + (tied ? 0 : bytes_of(weights.lm_head)) + bytes_of(weights.final_norm);
  for (const LayerWeights& layer : weights.layers) {
    bytes += bytes_of(layer.input_norm) + bytes_of(layer.post_attention_norm) + bytes_of(layer.q_norm) +
             bytes_of(layer.k_norm);
    for (const LinearWeights& linear : layer.linear) {
      bytes += bytes_of(linear.bias) + std::visit([](const auto& w) { return bytes_of(w); }, linear.weight);
    }
  }
  return bytes;
}

std::vector<float>& LayerWeights::norm(NormKind kind) {
  switch (kind) {
    case NormKind::input:
      return input_norm;
    case NormKind::post_attention:
      return post_attention_norm;
    case NormKind::q:
      return q_norm;
    case NormKind::k:
      return k_norm;
  }
  return input_norm;
}

Result<std::unique_ptr<WeightSource>> open_weights(const std::filesystem::path& dir, const ShardPlan& plan, int rank) {
  return open_source(dir, plan, rank, EightBit::floats);
}

Result<void> load_rank_weights_into(WeightSink& sink, const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                    const std::function<void(int, int)>& progress, int threads) {
  const auto source = open_source(dir, plan, rank, EightBit::int4_pairs);
  if (!source) return tl::unexpected(source.error());
  auto outer = (*source)->outer();
  if (!outer) return tl::unexpected(outer.error());
  if (auto ok = sink.put_outer(*std::move(outer)); !ok) return ok;

  const int32_t layers = plan.config().num_layers;
  std::atomic<bool> failed{false};  // what comes after it is not worth loading
  std::mutex mutex;                 // guards done and error, and keeps calls of sink and progress apart
  int done = 0;
  std::optional<std::pair<int32_t, Error>> error;  // of the lowest layer that failed
  in_parallel(static_cast<size_t>(layers), threads, [&](size_t i) {
    if (failed) return;
    const auto layer = static_cast<int32_t>(i);
    auto loaded = (*source)->layer(layer);
    const std::lock_guard lock(mutex);
    const Result<void> put =
        loaded ? sink.put_layer(layer, *std::move(loaded)) : Result<void>(tl::unexpected(loaded.error()));
    if (!put) {
      if (!error || layer < error->first) error = {layer, put.error()};
      failed = true;
      return;
    }
    ++done;
    if (progress) progress(done, layers);
  });
  if (error) return tl::unexpected(error->second);
  return {};
}

Result<RankWeights> load_rank_weights(const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                      const std::function<void(int, int)>& progress, int threads) {
  InMemory weights(plan.config());
  if (auto ok = load_rank_weights_into(weights, dir, plan, rank, progress, threads); !ok) {
    return tl::unexpected(ok.error());
  }
  return weights.take();
}

}  // namespace lorikeet::model
