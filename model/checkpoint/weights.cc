#include "model/checkpoint/weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/checkpoint_layout.h"
#include "model/checkpoint/linear_loader.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

Result<std::vector<float>> load_norm(const Checkpoint& checkpoint, const std::string& name, int32_t size) {
  auto tensor = checkpoint.require(name + ".weight");
  if (!tensor) return tl::unexpected(tensor.error());
  return load_vector(*tensor, size, {0, size});
}

Result<LayerWeights> load_layer(const Checkpoint& checkpoint, const ShardPlan& plan, int rank, int32_t layer) {
  const ModelConfig& config = plan.config();
  LayerWeights weights;
  auto input = load_norm(checkpoint, norm_name(config, layer, NormKind::input), config.hidden_size);
  auto post = load_norm(checkpoint, norm_name(config, layer, NormKind::post_attention), config.hidden_size);
  if (!input) return tl::unexpected(input.error());
  if (!post) return tl::unexpected(post.error());
  weights.input_norm = std::move(*input);
  weights.post_attention_norm = std::move(*post);
  if (config.architecture == Architecture::qwen3) {
    auto q = load_norm(checkpoint, norm_name(config, layer, NormKind::q), config.head_dim);
    auto k = load_norm(checkpoint, norm_name(config, layer, NormKind::k), config.head_dim);
    if (!q) return tl::unexpected(q.error());
    if (!k) return tl::unexpected(k.error());
    weights.q_norm = std::move(*q);
    weights.k_norm = std::move(*k);
  }
  for (const Projection p : kProjections) {
    auto linear = load_linear(checkpoint, plan, rank, layer, p);
    if (!linear) return tl::unexpected(linear.error());
    weights.at(p) = std::move(*linear);
  }
  return weights;
}

kernels::DenseWeight rows_of(const kernels::DenseWeight& whole, Range rows) {
  kernels::DenseWeight part = whole;
  part.n = rows.size();
  part.data = whole.row(rows.begin);
  return part;
}

Result<void> load_outer(const Checkpoint& checkpoint, const ShardPlan& plan, int rank, RankWeights& weights) {
  const ModelConfig& config = plan.config();
  auto embedding = checkpoint.require(embedding_name(config) + ".weight");
  if (!embedding) return tl::unexpected(embedding.error());
  auto table = view_matrix(*embedding, config.vocab_size, config.hidden_size);
  if (!table) return tl::unexpected(table.error());
  weights.embedding = *table;

  const std::string head_name = std::string(kLmHeadName) + ".weight";
  auto head = checkpoint.find(head_name);
  if (config.tie_word_embeddings) {
    if (head && (head->bytes.size() != embedding->bytes.size() ||
                 std::memcmp(head->bytes.data(), embedding->bytes.data(), head->bytes.size()) != 0)) {
      return fail("{}: config.json ties the embeddings, yet {} differs from {}.weight", checkpoint.dir().string(),
                  head_name, embedding_name(config));
    }
    weights.lm_head = rows_of(weights.embedding, plan.shard(rank).vocab);
  } else {
    if (!head) return fail("{}: no tensor named {}", checkpoint.dir().string(), head_name);
    auto whole = view_matrix(*head, config.vocab_size, config.hidden_size);
    if (!whole) return tl::unexpected(whole.error());
    weights.lm_head = rows_of(*whole, plan.shard(rank).vocab);
  }
  auto norm = load_norm(checkpoint, final_norm_name(config), config.hidden_size);
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

uint64_t bytes_of(const kernels::Int4Weight& w) {
  return w.q.size() + bytes_of(w.scale) + w.zero.size() + (w.run_begin.size() + w.permutation.size()) * sizeof(int32_t);
}

class CheckpointWeights final : public WeightSource {
 public:
  CheckpointWeights(Checkpoint checkpoint, const ShardPlan& plan, int rank)
      : checkpoint_(std::move(checkpoint)), plan_(plan), rank_(rank) {}

  Result<RankWeights> outer() const override {
    RankWeights weights;
    if (auto ok = load_outer(checkpoint_, plan_, rank_, weights); !ok) return tl::unexpected(ok.error());
    return weights;
  }

  Result<LayerWeights> layer(int32_t layer) const override { return load_layer(checkpoint_, plan_, rank_, layer); }

 private:
  const Checkpoint checkpoint_;
  const ShardPlan plan_;
  const int rank_;
};

}  // namespace

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

Result<std::unique_ptr<WeightSource>> open_weights(const std::filesystem::path& dir, const ShardPlan& plan, int rank) {
  auto checkpoint = Checkpoint::open(dir);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  if (auto ok = check_layout(*checkpoint, plan.config()); !ok) return tl::unexpected(ok.error());
  return std::make_unique<CheckpointWeights>(*std::move(checkpoint), plan, rank);
}

Result<RankWeights> load_rank_weights(const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                      const std::function<void(int, int)>& progress, int threads) {
  const auto source = open_weights(dir, plan, rank);
  if (!source) return tl::unexpected(source.error());
  auto outer = (*source)->outer();
  if (!outer) return tl::unexpected(outer.error());
  RankWeights weights = *std::move(outer);

  const int32_t layers = plan.config().num_layers;
  weights.layers.resize(static_cast<size_t>(layers));
  std::atomic<int32_t> next{0};
  std::mutex mutex;  // guards done and error, and keeps calls of progress apart
  int done = 0;
  std::optional<std::pair<int32_t, Error>> error;  // of the lowest layer that failed
  const auto work = [&] {
    for (int32_t layer = next++; layer < layers; layer = next++) {
      auto loaded = (*source)->layer(layer);
      const std::lock_guard lock(mutex);
      if (!loaded) {
        if (!error || layer < error->first) error = {layer, loaded.error()};
        next = layers;
        return;
      }
      weights.layers[static_cast<size_t>(layer)] = std::move(*loaded);
      ++done;
      if (progress) progress(done, layers);
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < std::min(threads, layers); ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (error) return tl::unexpected(error->second);
  weights.bytes = bytes_of(weights, plan.config().tie_word_embeddings);
  return weights;
}

}  // namespace lorikeet::model
