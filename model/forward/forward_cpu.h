// The layers of a Qwen on the CPU: from token ids to the hidden states before lm_head, for one rank.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/collective/collective.h"
#include "kernels/attention/paged_attention.h"
#include "kernels/base/aligned_floats.h"
#include "kernels/base/shared_memory.h"
#include "kernels/cpu/thread_pool.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/weights.h"
#include "model/forward/batch_adapters_cpu.h"

namespace lorikeet::model {

// A step's rows as one list of tokens.
struct TokenBatch {
  std::vector<int32_t> ids;
  std::vector<kernels::AttentionToken> attention;
  std::vector<int32_t> prompt_sizes;         // of the tokens' sequences
  std::vector<const SlotAdapter*> adapters;  // null: the base model

  int32_t size() const { return static_cast<int32_t>(ids.size()); }
};

// Keys and values of all layers, float32.
class KvCachesCpu {
 public:
  // In `memory`, of at least memory_bytes(), or in memory of their own where there is none.
  static Result<KvCachesCpu> make(const ModelConfig& config, int32_t kv_heads, int32_t block_size, int32_t num_blocks,
                                  std::shared_ptr<const kernels::SharedMemory> memory = nullptr);
  static uint64_t memory_bytes(const ModelConfig& config, int32_t kv_heads, int32_t block_size, int32_t num_blocks);

  kernels::KvCacheCpu layer(int32_t i);

  static uint64_t block_bytes(const ModelConfig& config, int32_t kv_heads, int32_t block_size);

 private:
  kernels::AlignedFloats own_;
  std::shared_ptr<const kernels::SharedMemory> shared_;
  float* begin_ = nullptr;  // keys and values, layer by layer
  size_t stride_ = 0;       // floats, from keys to values and on to the next layer's keys
  int32_t kv_heads_ = 0, block_size_ = 0, head_dim_ = 0;
};

// Float32 throughout, but for the inputs of int4 products with int8_activations. After o_proj and down_proj the ranks' parts are added.
class ForwardCpu {
 public:
  // What is passed by reference must outlive this.
  ForwardCpu(const RankWeights& weights, const ShardPlan& plan, KvCachesCpu caches, bool int8_activations,
             comm::Collective& group, kernels::ThreadPool& pool);

  // The final norm's output [tokens, hidden]. Writes the tokens' keys and values. Throws comm::CollectiveError.
  std::vector<float> hidden_states(const TokenBatch& batch, const BatchAdapters& adapters);

 private:
  std::vector<float> rope_angles(const TokenBatch& batch) const;
  // The outputs of projections that take the same x: [N][tokens, outputs].
  template <size_t N>
  std::array<std::vector<float>, N> project(int32_t layer, const std::array<Projection, N>& projections,
                                            const BatchAdapters& adapters, const std::vector<float>& x, int32_t tokens);
  void attention(int32_t layer, const TokenBatch& batch, const BatchAdapters& adapters,
                 const std::vector<float>& angles, const std::vector<float>& normed, std::vector<float>& delta);
  void mlp(int32_t layer, int32_t tokens, const BatchAdapters& adapters, const std::vector<float>& normed,
           std::vector<float>& delta);

  const RankWeights& weights_;
  const ModelConfig& config_;
  const int32_t heads_, kv_heads_;  // of this rank
  KvCachesCpu caches_;
  const bool int8_activations_;
  comm::Collective& group_;
  kernels::ThreadPool& pool_;
  std::vector<float> inv_freq_;  // [head_dim / 2]
  float rope_factor_ = 1;        // on cosines and sines
};

}  // namespace lorikeet::model
