#include "model/forward/forward_cpu.h"

#include <utility>

#include "kernels/base/rounding.h"
#include "kernels/layer/embedding.h"
#include "kernels/layer/rms_norm.h"
#include "kernels/layer/rope.h"
#include "kernels/layer/silu_mul.h"
#include "model/forward/linear_cpu.h"

namespace lorikeet::model {

namespace {

// Of a layer's keys, or its values, with the room behind them, in whole cache lines.
size_t stride_of(const ModelConfig& config, int32_t kv_heads, int32_t block_size, int32_t num_blocks) {
  constexpr size_t kLine = kernels::kCacheLine / sizeof(float);
  const size_t floats = static_cast<size_t>(num_blocks) * static_cast<size_t>(kv_heads) *
                        static_cast<size_t>(block_size) * static_cast<size_t>(config.head_dim);
  return kernels::round_up(floats + kernels::KvCacheCpu::kPadding, kLine);
}

}  // namespace

Result<KvCachesCpu> KvCachesCpu::make(const ModelConfig& config, int32_t kv_heads, int32_t block_size,
                                      int32_t num_blocks, std::shared_ptr<const kernels::SharedMemory> memory) {
  KvCachesCpu caches;
  caches.kv_heads_ = kv_heads;
  caches.block_size_ = block_size;
  caches.head_dim_ = config.head_dim;
  caches.stride_ = stride_of(config, kv_heads, block_size, num_blocks);
  const uint64_t bytes = memory_bytes(config, kv_heads, block_size, num_blocks);
  if (memory != nullptr) {
    if (memory->size() < bytes) return fail("{} bytes of memory for a KV cache of {}", memory->size(), bytes);
    caches.begin_ = reinterpret_cast<float*>(memory->data());
    caches.shared_ = std::move(memory);
    return caches;
  }
  auto own = kernels::AlignedFloats::allocate(bytes / sizeof(float));
  if (!own) return fail("no memory for a KV cache of {} blocks ({} bytes)", num_blocks, bytes);
  caches.own_ = *std::move(own);
  caches.begin_ = caches.own_.data();
  return caches;
}

uint64_t KvCachesCpu::memory_bytes(const ModelConfig& config, int32_t kv_heads, int32_t block_size,
                                   int32_t num_blocks) {
  return 2ULL * static_cast<uint64_t>(config.num_layers) * stride_of(config, kv_heads, block_size, num_blocks) *
         sizeof(float);
}

kernels::KvCacheCpu KvCachesCpu::layer(int32_t i) {
  float* const keys = begin_ + 2 * static_cast<size_t>(i) * stride_;
  return {keys, keys + stride_, kv_heads_, block_size_, head_dim_};
}

uint64_t KvCachesCpu::block_bytes(const ModelConfig& config, int32_t kv_heads, int32_t block_size) {
  return 2ULL * static_cast<uint64_t>(config.num_layers) * static_cast<uint64_t>(kv_heads) *
         static_cast<uint64_t>(block_size) * static_cast<uint64_t>(config.head_dim) * sizeof(float);
}

ForwardCpu::ForwardCpu(const RankWeights& weights, const ShardPlan& plan, KvCachesCpu caches, bool int8_activations,
                       comm::Collective& group, kernels::ThreadPool& pool)
    : weights_(weights),
      config_(plan.config()),
      heads_(plan.shard(group.rank()).heads.size()),
      kv_heads_(plan.shard(group.rank()).kv_heads.size()),
      caches_(std::move(caches)),
      int8_activations_(int8_activations),
      group_(group),
      pool_(pool) {
  kernels::YarnParameters yarn;
  if (config_.yarn) {
    yarn = {config_.yarn->factor, static_cast<double>(config_.yarn->original_max_position_embeddings),
            config_.yarn->beta_fast, config_.yarn->beta_slow, config_.yarn->truncate};
    rope_factor_ = config_.yarn->attention_factor;
  }
  inv_freq_ = kernels::rope_inverse_frequencies(config_.head_dim, config_.rope_theta, yarn);
}

std::vector<float> ForwardCpu::hidden_states(const TokenBatch& batch, const BatchAdapters& adapters) {
  const int32_t tokens = batch.size(), hidden = config_.hidden_size;
  const float epsilon = config_.rms_norm_eps;
  const auto size = static_cast<size_t>(tokens) * static_cast<size_t>(hidden);
  std::vector<float> state(size), normed(size), delta(size);  // delta: what the last part adds to the residual stream
  kernels::embedding_cpu(weights_.embedding, batch.ids.data(), tokens, state.data());
  adapters.add_embedding(batch.ids.data(), state.data());
  const std::vector<float> angles = rope_angles(batch);
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
    kernels::add_rms_norm_cpu(state.data(), delta.data(), w.input_norm.data(), epsilon, tokens, hidden, normed.data());
    attention(layer, batch, adapters, angles, normed, delta);
    kernels::add_rms_norm_cpu(state.data(), delta.data(), w.post_attention_norm.data(), epsilon, tokens, hidden,
                              normed.data());
    mlp(layer, tokens, adapters, normed, delta);
  }
  kernels::add_rms_norm_cpu(state.data(), delta.data(), weights_.final_norm.data(), epsilon, tokens, hidden,
                            normed.data());
  return normed;
}

// Cosines and sines [tokens, head_dim].
std::vector<float> ForwardCpu::rope_angles(const TokenBatch& batch) const {
  const int32_t head_dim = config_.head_dim;
  std::vector<float> angles(static_cast<size_t>(batch.size()) * static_cast<size_t>(head_dim));
  const bool by_prompt = config_.use_dynamic_ntk && config_.seq_length > 0;
  std::vector<float> of_prompt;
  int32_t prompt_size = -1;
  for (int32_t t = 0; t < batch.size(); ++t) {
    const float* inv_freq = inv_freq_.data();
    if (by_prompt) {
      if (batch.prompt_sizes[static_cast<size_t>(t)] != prompt_size) {
        prompt_size = batch.prompt_sizes[static_cast<size_t>(t)];
        of_prompt = kernels::rope_inverse_frequencies(
            head_dim, kernels::dynamic_ntk_base(config_.rope_theta, head_dim, prompt_size, config_.seq_length));
      }
      inv_freq = of_prompt.data();
    }
    kernels::rope_angles_cpu(batch.attention[static_cast<size_t>(t)].position, inv_freq, head_dim, rope_factor_,
                             angles.data() + static_cast<int64_t>(t) * head_dim);
  }
  return angles;
}

template <size_t N>
std::array<std::vector<float>, N> ForwardCpu::project(int32_t layer, const std::array<Projection, N>& projections,
                                                      const BatchAdapters& adapters, const std::vector<float>& x,
                                                      int32_t tokens) {
  std::array<std::vector<float>, N> outputs;
  std::array<LinearCall, N> calls;
  for (size_t i = 0; i < N; ++i) {
    const LinearWeights& linear = weights_.layers[static_cast<size_t>(layer)].at(projections[i]);
    outputs[i].resize(static_cast<size_t>(tokens) * static_cast<size_t>(outputs_of(linear)));
    calls[i] = {&linear, adapters.of_projection(layer, projections[i]), outputs[i].data()};
  }
  linear_cpu(calls, x.data(), tokens, int8_activations_, pool_);
  return outputs;
}

void ForwardCpu::attention(int32_t layer, const TokenBatch& batch, const BatchAdapters& adapters,
                           const std::vector<float>& angles, const std::vector<float>& normed,
                           std::vector<float>& delta) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const int32_t tokens = batch.size(), head_dim = config_.head_dim;
  std::array<std::vector<float>, 3> qkv =
      project<3>(layer, {Projection::q, Projection::k, Projection::v}, adapters, normed, tokens);
  std::vector<float>&q = qkv[0], &k = qkv[1];
  if (!w.q_norm.empty()) {
    const float epsilon = config_.rms_norm_eps;
    kernels::rms_norm_cpu(q.data(), w.q_norm.data(), epsilon, tokens * heads_, head_dim, q.data());
    kernels::rms_norm_cpu(k.data(), w.k_norm.data(), epsilon, tokens * kv_heads_, head_dim, k.data());
  }
  for (int32_t t = 0; t < tokens; ++t) {
    const float* cos_sin = angles.data() + static_cast<int64_t>(t) * head_dim;
    float* q_row = q.data() + static_cast<int64_t>(t) * heads_ * head_dim;
    kernels::rope_cpu(q_row, heads_, head_dim, cos_sin);
    kernels::rope_cpu(k.data() + static_cast<int64_t>(t) * kv_heads_ * head_dim, kv_heads_, head_dim, cos_sin);
    if (!config_.use_logn_attn || config_.seq_length == 0) continue;
    const float factor = kernels::log_n_factor(batch.attention[static_cast<size_t>(t)].position, config_.seq_length);
    for (int32_t i = 0; i < heads_ * head_dim; ++i) q_row[i] *= factor;
  }
  const kernels::KvCacheCpu cache = caches_.layer(layer);
  kernels::store_kv_cpu(cache, batch.attention.data(), tokens, k.data(), qkv[2].data());
  std::vector<float> mixed(q.size());
  kernels::paged_attention_cpu(cache, batch.attention.data(), tokens, q.data(), heads_, mixed.data(), pool_);
  delta = std::move(project<1>(layer, {Projection::o}, adapters, mixed, tokens)[0]);
  group_.all_reduce(delta.data(), delta.size());
}

void ForwardCpu::mlp(int32_t layer, int32_t tokens, const BatchAdapters& adapters, const std::vector<float>& normed,
                     std::vector<float>& delta) {
  std::array<std::vector<float>, 2> gate_up =
      project<2>(layer, {Projection::gate, Projection::up}, adapters, normed, tokens);
  std::vector<float>& gate = gate_up[0];
  kernels::silu_mul_cpu(gate.data(), gate_up[1].data(), static_cast<int64_t>(gate.size()), gate.data(), pool_);
  delta = std::move(project<1>(layer, {Projection::down}, adapters, gate, tokens)[0]);
  group_.all_reduce(delta.data(), delta.size());
}

}  // namespace lorikeet::model
