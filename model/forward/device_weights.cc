#include "model/forward/device_weights.h"

#include <atomic>
#include <cmath>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>

#include "kernels/dense/dense_weight_cuda.h"
#include "model/checkpoint/in_parallel.h"
#include "model/forward/cuda_model.h"
#include "model/forward/device_upload.h"

namespace lorikeet::model {
namespace {

constexpr uint64_t kDummySeed = 1;

using kernels::DeviceBuffer;

uint64_t bytes_of(const DeviceLinear& linear) {
  uint64_t bytes = 0;
  for (const DeviceProduct& product : linear.products) {
    if (const auto* packed = std::get_if<kernels::PackedInt4Weight>(&product.weight)) {
      bytes += packed->data.bytes() + packed->permutation.bytes();
    } else {
      bytes += std::get<DeviceDense>(product.weight).data.bytes();
    }
  }
  return bytes;
}

Result<void> check_sizes(const ModelConfig& config) {
  if (config.hidden_size % 8 != 0) return fail("the hidden size {} is not a multiple of 8", config.hidden_size);
  if (config.head_dim != 64 && config.head_dim != 128) {
    return fail("heads of {} elements: the CUDA kernels take 64 or 128", config.head_dim);
  }
  return {};
}

Result<void> load_outer(const WeightSource& source, const ShardPlan& plan, int rank, DeviceUpload& upload,
                        kernels::Dtype dtype, DeviceWeights& weights) {
  const auto outer = source.outer();
  if (!outer) return tl::unexpected(outer.error());
  const kernels::DenseWeight* embedding[] = {&outer->embedding};
  auto made = upload.rows(embedding);
  if (!made) return tl::unexpected(made.error());
  weights.embedding = *std::move(made);
  const ModelConfig& config = plan.config();
  if (config.tie_word_embeddings) {
    weights.lm_head = weights.embedding.as<unsigned char>() + static_cast<uint64_t>(plan.shard(rank).vocab.begin) *
                                                                  static_cast<uint64_t>(config.hidden_size) *
                                                                  kernels::size_of(dtype);
  } else {
    const kernels::DenseWeight* head[] = {&outer->lm_head};
    auto head_made = upload.rows(head);
    if (!head_made) return tl::unexpected(head_made.error());
    weights.lm_head_memory = *std::move(head_made);
    weights.lm_head = weights.lm_head_memory.data();
  }
  auto norm = upload.floats(outer->final_norm);
  if (!norm) return tl::unexpected(norm.error());
  weights.final_norm = *std::move(norm);
  return {};
}

// Makes the random weights of one rank.
class RandomWeights {
 public:
  RandomWeights(const ShardPlan& plan, int rank, kernels::Dtype dtype, uint64_t seed, DeviceUpload& upload)
      : plan_(plan), config_(plan.config()), rank_(rank), dtype_(dtype), seed_(seed), upload_(upload) {}

  Result<DeviceWeights> make() {
    DeviceWeights weights;
    auto embedding = dense(config_.vocab_size, config_.hidden_size, 1, 0);
    if (!embedding) return tl::unexpected(embedding.error());
    weights.embedding = std::move(embedding->data);
    const Range vocab = plan_.shard(rank_).vocab;
    const float head_bound = 4 / std::sqrt(static_cast<float>(config_.hidden_size));
    if (config_.tie_word_embeddings) {
      weights.lm_head = weights.embedding.as<unsigned char>() + static_cast<uint64_t>(vocab.begin) *
                                                                    static_cast<uint64_t>(config_.hidden_size) *
                                                                    kernels::size_of(dtype_);
    } else {
      auto head = dense(vocab.size(), config_.hidden_size, head_bound, own_seed());
      if (!head) return tl::unexpected(head.error());
      weights.lm_head_memory = std::move(head->data);
      weights.lm_head = weights.lm_head_memory.data();
    }
    auto norm = ones(config_.hidden_size);
    if (!norm) return tl::unexpected(norm.error());
    weights.final_norm = *std::move(norm);
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      auto made = layer();
      if (!made) return tl::unexpected(made.error());
      weights.layers.push_back(*std::move(made));
    }
    upload_.stream().synchronize();
    return weights;
  }

 private:
  uint64_t own_seed() { return seed_ + (++next_ << 8) + static_cast<uint64_t>(rank_) + 1; }

  Result<DeviceBuffer> ones(int32_t count) {
    return upload_.floats(std::vector<float>(static_cast<size_t>(count), 1.0F));
  }

  Result<DeviceDense> dense(int32_t n, int32_t k, float bound, uint64_t salt) {
    const int64_t count = static_cast<int64_t>(n) * k;
    auto data = DeviceBuffer::allocate(static_cast<uint64_t>(count) * kernels::size_of(dtype_), "dense weights");
    if (!data) return tl::unexpected(data.error());
    kernels::fill_uniform_cuda(data->data(), dtype_, count, bound, seed_ + salt, upload_.stream());
    return DeviceDense{n, k, *std::move(data)};
  }

  Result<DeviceLinear> linear(std::initializer_list<Projection> projections, bool paired) {
    DeviceLinear linear;
    linear.inputs = plan_.inputs(*projections.begin(), rank_).size();
    if (linear.inputs % 8 != 0) {
      return fail("a projection has {} inputs on this rank, not a multiple of 8", linear.inputs);
    }
    for (const Projection p : projections) linear.outputs.push_back(plan_.outputs(p, rank_).size());
    DeviceProduct product;
    if (config_.quant.method == QuantMethod::none) {
      const float bound = 1.7F / std::sqrt(static_cast<float>(input_size(config_, *projections.begin())));
      auto made = dense(linear.all_outputs(), linear.inputs, bound, own_seed());
      if (!made) return tl::unexpected(made.error());
      product.weight = *std::move(made);
    } else {
      auto made =
          kernels::PackedInt4Weight::random(linear.all_outputs(), linear.inputs, paired, own_seed(), upload_.stream());
      if (!made) return tl::unexpected(made.error());
      product.weight = *std::move(made);
    }
    linear.products.push_back(std::move(product));
    return linear;
  }

  Result<DeviceLayer> layer() {
    DeviceLayer layer;
    const auto take = [](auto& to, auto made) -> Result<void> {
      if (!made) return tl::unexpected(made.error());
      to = *std::move(made);
      return {};
    };
    Result<void> ok = take(layer.input_norm, ones(config_.hidden_size));
    if (ok) ok = take(layer.post_attention_norm, ones(config_.hidden_size));
    if (config_.architecture == Architecture::qwen3) {
      if (ok) ok = take(layer.q_norm, ones(config_.head_dim));
      if (ok) ok = take(layer.k_norm, ones(config_.head_dim));
    } else {
      const int32_t outputs = plan_.outputs(Projection::q, rank_).size() + plan_.outputs(Projection::k, rank_).size() +
                              plan_.outputs(Projection::v, rank_).size();
      if (ok) ok = take(layer.qkv_bias, upload_.floats(std::vector<float>(static_cast<size_t>(outputs), 0.01F)));
    }
    if (ok) ok = take(layer.qkv, linear({Projection::q, Projection::k, Projection::v}, false));
    if (ok) ok = take(layer.o, linear({Projection::o}, false));
    if (ok) ok = take(layer.gate_up, linear({Projection::gate, Projection::up}, true));
    if (ok) ok = take(layer.down, linear({Projection::down}, false));
    if (!ok) return tl::unexpected(ok.error());
    return layer;
  }

  const ShardPlan& plan_;
  const ModelConfig& config_;
  const int rank_;
  const kernels::Dtype dtype_;
  const uint64_t seed_;
  uint64_t next_ = 0;
  DeviceUpload& upload_;
};

}  // namespace

int32_t DeviceLinear::all_outputs() const {
  return std::accumulate(outputs.begin(), outputs.end(), 0);
}

bool DeviceLinear::fuses_silu() const {
  const auto* packed = products.size() == 1 ? std::get_if<kernels::PackedInt4Weight>(&products[0].weight) : nullptr;
  return packed != nullptr && packed->paired;
}

const DeviceLinear& DeviceLayer::of(Projection p) const {
  switch (p) {
    case Projection::o:
      return o;
    case Projection::gate:
    case Projection::up:
      return gate_up;
    case Projection::down:
      return down;
    default:
      return qkv;
  }
}

uint64_t DeviceWeights::bytes() const {
  uint64_t bytes = embedding.bytes() + lm_head_memory.bytes() + final_norm.bytes();
  for (const DeviceLayer& layer : layers) {
    bytes += layer.input_norm.bytes() + layer.post_attention_norm.bytes() + layer.q_norm.bytes() +
             layer.k_norm.bytes() + layer.qkv_bias.bytes() + bytes_of(layer.qkv) + bytes_of(layer.o) +
             bytes_of(layer.gate_up) + bytes_of(layer.down);
  }
  return bytes;
}

Result<DeviceWeights> load_device_weights(const WeightSource& source, const ShardPlan& plan, int rank,
                                          kernels::Dtype dtype, const std::function<void(int, int)>& progress,
                                          int threads) {
  if (auto ok = check_sizes(plan.config()); !ok) return tl::unexpected(ok.error());
  const auto device = kernels::current_device();
  auto upload = DeviceUpload::make(dtype);
  if (!upload) return tl::unexpected(upload.error());
  DeviceWeights weights;
  if (auto ok = load_outer(source, plan, rank, *upload, dtype, weights); !ok) return tl::unexpected(ok.error());

  const int32_t layers = plan.config().num_layers;
  weights.layers.resize(static_cast<size_t>(layers));
  std::atomic<bool> failed{false};  // what comes after it is not worth loading
  std::mutex mutex;                 // guards what follows, and the upload
  int done = 0;
  std::optional<std::pair<int32_t, Error>> error;  // of the lowest layer that failed
  in_parallel(static_cast<size_t>(layers), threads, [&](size_t i) {
    if (failed) return;
    const auto layer = static_cast<int32_t>(i);
    const Result<void> usable = kernels::use_device(device);  // by this thread
    const Result<LayerWeights> host =
        usable ? source.layer(layer) : Result<LayerWeights>(tl::unexpected(usable.error()));
    const std::lock_guard lock(mutex);
    Result<DeviceLayer> loaded = host ? upload->layer(*host) : Result<DeviceLayer>(tl::unexpected(host.error()));
    if (!loaded) {
      if (!error || layer < error->first) error = {layer, loaded.error()};
      failed = true;
      return;
    }
    weights.layers[i] = *std::move(loaded);
    ++done;
    if (progress) progress(done, layers);
  });
  if (error) return tl::unexpected(error->second);
  return weights;
}

Result<DeviceWeights> random_device_weights(const ShardPlan& plan, int rank, kernels::Dtype dtype, uint64_t seed) {
  if (auto ok = check_sizes(plan.config()); !ok) return tl::unexpected(ok.error());
  auto upload = DeviceUpload::make(dtype);
  if (!upload) return tl::unexpected(upload.error());
  return RandomWeights(plan, rank, dtype, seed, *upload).make();
}

Result<DeviceWeights> put_weights_on_device(const WeightSource* source, const ShardPlan& plan, int rank,
                                            const CudaModelOptions& options) {
  if (source == nullptr) return random_device_weights(plan, rank, options.dtype, kDummySeed);
  return load_device_weights(*source, plan, rank, options.dtype, options.progress, options.load_threads);
}

}  // namespace lorikeet::model
