// The CPU backend of model/rank_model.h.
#include <glog/logging.h>

#include <deque>
#include <mutex>
#include <utility>

#include "kernels/aligned_floats.h"
#include "kernels/dense_gemm.h"
#include "kernels/embedding.h"
#include "kernels/paged_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/silu_mul.h"
#include "model/batch_adapters_cpu.h"
#include "model/dora_norms_cpu.h"
#include "model/linear_cpu.h"
#include "model/rank_model.h"
#include "model/sampler_cpu.h"

namespace lorikeet::model {
namespace {

// A step's rows as one list of tokens.
struct FlatBatch {
  std::vector<int32_t> ids;                        // [tokens]
  std::vector<kernels::AttentionToken> attention;  // [tokens]
  std::vector<int32_t> prompt_sizes;               // [tokens]
  std::vector<const SlotAdapter*> adapters;        // [tokens]
  std::vector<int32_t> row_begin;                  // [rows]
  std::vector<int32_t> pending;                    // [rows]: the token that stood for kPendingToken; -1: none did
  int32_t tokens() const { return static_cast<int32_t>(ids.size()); }
};

class CpuModel final : public RankModel {
 public:
  CpuModel(RankWeights weights, const ShardPlan& plan, const RankModelOptions& options,
           std::shared_ptr<comm::Collective> group)
      : weights_(std::move(weights)),
        plan_(plan),
        config_(plan_.config()),
        options_(options),
        group_(std::move(group)),
        shard_(plan_.shard(group_->rank())),
        pool_(options.num_threads),
        slots_(static_cast<size_t>(options.num_slots)) {
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      keys_.emplace_back(cache_floats() + kernels::KvCacheCpu::kPadding);
      values_.emplace_back(cache_floats());
    }
    kernels::YarnParameters yarn;
    if (config_.yarn) {
      yarn = {config_.yarn->factor, static_cast<double>(config_.yarn->original_max_position_embeddings),
              config_.yarn->beta_fast, config_.yarn->beta_slow};
      rope_factor_ = config_.yarn->attention_factor;
    }
    inv_freq_ = kernels::rope_inverse_frequencies(config_.head_dim, config_.rope_theta, yarn);
  }

  Result<void> set_adapter(int32_t slot, const Adapter& part) override {
    if (slot < 0 || slot >= options_.num_slots) {
      return fail("adapter {} was sent to slot {}, but there are {}", part.digest, slot, options_.num_slots);
    }
    for (const LoraLayer& layer : part.layers) {
      for (const auto& pair : layer) {
        if (pair && pair->magnitude.size() != pair->dora_factor.size()) {
          return fail("adapter {} is a DoRA and has no factors yet", part.digest);
        }
      }
    }
    auto adapter = std::make_shared<const SlotAdapter>(part);
    const std::lock_guard lock(slots_mutex_);
    slots_[static_cast<size_t>(slot)] = std::move(adapter);
    return {};
  }

  void clear_adapter(int32_t slot) override {
    const std::lock_guard lock(slots_mutex_);
    slots_.at(static_cast<size_t>(slot)).reset();
  }

  std::vector<std::vector<float>> dora_squared_norms(const Adapter& part) override {
    return dora_squared_norms_cpu(part, weights_);
  }

  void begin_step(std::span<const BatchRow> rows) override {
    CHECK_LT(static_cast<int>(results_.size()), kMaxStepsInFlight);
    std::vector<std::shared_ptr<const SlotAdapter>> slots;  // held for the step
    {
      const std::lock_guard lock(slots_mutex_);
      slots = slots_;
    }
    const FlatBatch batch = flatten(rows, slots);
    std::vector<RowOutput> outputs(rows.size());
    if (batch.tokens() > 0) compute(rows, batch, outputs);
    last_drawn_.clear();
    for (const RowOutput& output : outputs) last_drawn_.push_back(output.token_id);
    results_.push_back(std::move(outputs));
  }

  bool step_ready() override { return true; }

  std::vector<RowOutput> finish_step() override {
    CHECK(!results_.empty());
    std::vector<RowOutput> outputs = std::move(results_.front());
    results_.pop_front();
    return outputs;
  }

  uint64_t kv_block_bytes() const override {
    return 2ULL * static_cast<uint64_t>(config_.num_layers) * static_cast<uint64_t>(shard_.kv_heads.size()) *
           static_cast<uint64_t>(options_.block_size) * static_cast<uint64_t>(config_.head_dim) * sizeof(float);
  }

 private:
  size_t cache_floats() const {
    return static_cast<size_t>(options_.num_blocks) * static_cast<size_t>(shard_.kv_heads.size()) *
           static_cast<size_t>(options_.block_size) * static_cast<size_t>(config_.head_dim);
  }

  FlatBatch flatten(std::span<const BatchRow> rows,
                    const std::vector<std::shared_ptr<const SlotAdapter>>& slots) const {
    FlatBatch batch;
    for (const BatchRow& row : rows) {
      const SlotAdapter* adapter = row.slot < 0 ? nullptr : slots.at(static_cast<size_t>(row.slot)).get();
      if (row.slot >= 0) CHECK(adapter != nullptr) << "slot " << row.slot << " is empty";
      batch.row_begin.push_back(batch.tokens());
      batch.pending.push_back(-1);
      for (size_t i = 0; i < row.token_ids.size(); ++i) {
        int32_t id = row.token_ids[i];
        if (id == kPendingToken) {
          id = last_drawn_.at(static_cast<size_t>(row.pending_row));
          batch.pending.back() = id;
        }
        batch.ids.push_back(id);
        batch.attention.push_back({row.start + static_cast<int32_t>(i), row.block_table.data()});
        batch.prompt_sizes.push_back(row.prompt_size);
        batch.adapters.push_back(adapter);
      }
    }
    return batch;
  }

  void compute(std::span<const BatchRow> rows, const FlatBatch& batch, std::vector<RowOutput>& outputs) {
    const int32_t tokens = batch.tokens();
    const int32_t hidden = config_.hidden_size;
    const auto state_size = static_cast<size_t>(tokens) * static_cast<size_t>(hidden);
    const BatchAdapters adapters(batch.adapters);
    std::vector<float> state(state_size), normed(state_size), delta(state_size);
    kernels::embedding_cpu(weights_.embedding, batch.ids.data(), tokens, state.data());
    adapters.add_embedding(batch.ids.data(), state.data());
    const std::vector<float> angles = rope_angles(batch);
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
      if (layer == 0) {
        kernels::rms_norm_cpu(state.data(), w.input_norm.data(), config_.rms_norm_eps, tokens, hidden, normed.data());
      } else {
        kernels::add_rms_norm_cpu(state.data(), delta.data(), w.input_norm.data(), config_.rms_norm_eps, tokens, hidden,
                                  normed.data());
      }
      attention(layer, batch, adapters, angles, normed, delta);
      kernels::add_rms_norm_cpu(state.data(), delta.data(), w.post_attention_norm.data(), config_.rms_norm_eps, tokens,
                                hidden, normed.data());
      mlp(layer, tokens, adapters, normed, delta);
    }
    kernels::add_rms_norm_cpu(state.data(), delta.data(), weights_.final_norm.data(), config_.rms_norm_eps, tokens,
                              hidden, normed.data());
    finish(rows, batch, adapters, normed, outputs);
  }

  // Cosines and sines [tokens, head_dim].
  std::vector<float> rope_angles(const FlatBatch& batch) const {
    const int32_t head_dim = config_.head_dim;
    std::vector<float> angles(static_cast<size_t>(batch.tokens()) * static_cast<size_t>(head_dim));
    std::vector<float> of_prompt;
    int32_t prompt_size = -1;
    for (int32_t t = 0; t < batch.tokens(); ++t) {
      const float* inv_freq = inv_freq_.data();
      if (config_.use_dynamic_ntk && config_.seq_length > 0) {
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

  std::vector<float> project(int32_t layer, Projection p, const BatchAdapters& adapters, const float* x,
                             int32_t tokens) {
    const LinearWeights& linear = weights_.layers[static_cast<size_t>(layer)].at(p);
    std::vector<float> y(static_cast<size_t>(tokens) * static_cast<size_t>(outputs_of(linear)));
    linear_cpu(linear, adapters.of_projection(layer, p), x, tokens, y.data(), pool_);
    return y;
  }

  void attention(int32_t layer, const FlatBatch& batch, const BatchAdapters& adapters, const std::vector<float>& angles,
                 const std::vector<float>& normed, std::vector<float>& delta) {
    const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
    const int32_t tokens = batch.tokens(), head_dim = config_.head_dim;
    const int32_t heads = shard_.heads.size(), kv_heads = shard_.kv_heads.size();
    std::vector<float> q = project(layer, Projection::q, adapters, normed.data(), tokens);
    std::vector<float> k = project(layer, Projection::k, adapters, normed.data(), tokens);
    const std::vector<float> v = project(layer, Projection::v, adapters, normed.data(), tokens);
    if (!w.q_norm.empty()) {
      kernels::rms_norm_cpu(q.data(), w.q_norm.data(), config_.rms_norm_eps, tokens * heads, head_dim, q.data());
      kernels::rms_norm_cpu(k.data(), w.k_norm.data(), config_.rms_norm_eps, tokens * kv_heads, head_dim, k.data());
    }
    for (int32_t t = 0; t < tokens; ++t) {
      const float* cos_sin = angles.data() + static_cast<int64_t>(t) * head_dim;
      float* q_row = q.data() + static_cast<int64_t>(t) * heads * head_dim;
      kernels::rope_cpu(q_row, heads, head_dim, cos_sin);
      kernels::rope_cpu(k.data() + static_cast<int64_t>(t) * kv_heads * head_dim, kv_heads, head_dim, cos_sin);
      if (!config_.use_logn_attn || config_.seq_length == 0) continue;
      const float factor = kernels::log_n_factor(batch.attention[static_cast<size_t>(t)].position, config_.seq_length);
      for (int32_t i = 0; i < heads * head_dim; ++i) q_row[i] *= factor;
    }
    const kernels::KvCacheCpu cache = {keys_[static_cast<size_t>(layer)].data(),
                                       values_[static_cast<size_t>(layer)].data(), kv_heads, options_.block_size,
                                       head_dim};
    kernels::store_kv_cpu(cache, batch.attention.data(), tokens, k.data(), v.data());
    std::vector<float> mixed(q.size());
    kernels::paged_attention_cpu(cache, batch.attention.data(), tokens, q.data(), heads, mixed.data(), pool_);
    delta = project(layer, Projection::o, adapters, mixed.data(), tokens);
    group_->all_reduce(delta.data(), delta.size());
  }

  void mlp(int32_t layer, int32_t tokens, const BatchAdapters& adapters, const std::vector<float>& normed,
           std::vector<float>& delta) {
    std::vector<float> gate = project(layer, Projection::gate, adapters, normed.data(), tokens);
    const std::vector<float> up = project(layer, Projection::up, adapters, normed.data(), tokens);
    kernels::silu_mul_cpu(gate.data(), up.data(), static_cast<int64_t>(gate.size()), gate.data(), pool_);
    delta = project(layer, Projection::down, adapters, gate.data(), tokens);
    group_->all_reduce(delta.data(), delta.size());
  }

  // lm_head on the tokens whose logits somebody wants, and what is made of them.
  void finish(std::span<const BatchRow> rows, const FlatBatch& batch, const BatchAdapters& adapters,
              const std::vector<float>& normed, std::vector<RowOutput>& outputs) {
    std::vector<LogitsUse> uses;
    std::vector<int32_t> tokens;
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto size = static_cast<int32_t>(rows[r].token_ids.size());
      outputs[r].target_logprobs.assign(rows[r].logprob_targets.size(), 0.0F);
      for (int32_t i = 0; i < size; ++i) {
        LogitsUse use;
        use.row = r;
        if (!rows[r].logprob_targets.empty()) use.target = rows[r].logprob_targets[static_cast<size_t>(i)];
        use.target_index = i;
        use.sample = rows[r].sample && i + 1 == size;
        if (use.target < 0 && !use.sample) continue;
        uses.push_back(use);
        tokens.push_back(batch.row_begin[r] + i);
      }
    }
    const auto hidden = static_cast<size_t>(config_.hidden_size);
    std::vector<float> x(tokens.size() * hidden);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto from = normed.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(tokens[i]) * hidden);
      std::copy(from, from + config_.hidden_size, x.begin() + static_cast<std::ptrdiff_t>(i * hidden));
    }
    const int32_t vocab = shard_.vocab.size();
    std::vector<float> logits(tokens.size() * static_cast<size_t>(vocab));
    if (!tokens.empty()) {
      kernels::dense_gemm_cpu(weights_.lm_head, x.data(), config_.hidden_size, static_cast<int32_t>(tokens.size()),
                              logits.data(), vocab, pool_);
      kernels::lora_cpu(adapters.of_lm_head(tokens), x.data(), config_.hidden_size, logits.data(), vocab, pool_);
    }
    finish_rows_cpu(rows, uses, batch.pending, logits, plan_, *group_, outputs);
  }

  const RankWeights weights_;
  const ShardPlan plan_;
  const ModelConfig& config_;
  const RankModelOptions options_;
  const std::shared_ptr<comm::Collective> group_;
  const RankShard shard_;
  kernels::ThreadPool pool_;
  std::vector<float> inv_freq_;  // [head_dim / 2]
  float rope_factor_ = 1;
  std::vector<kernels::AlignedFloats> keys_, values_;  // per layer: kernels::KvCacheCpu

  std::mutex slots_mutex_;
  std::vector<std::shared_ptr<const SlotAdapter>> slots_;

  std::deque<std::vector<RowOutput>> results_;  // of steps that are begun and not finished
  std::vector<int32_t> last_drawn_;             // per row of the step that was begun last
};

}  // namespace

Result<std::unique_ptr<RankModel>> make_cpu_model(RankWeights weights, const ShardPlan& plan,
                                                  const RankModelOptions& options,
                                                  std::shared_ptr<comm::Collective> group) {
  if (options.block_size < 1 || options.num_blocks < 1) return fail("the KV cache has no blocks");
  return std::make_unique<CpuModel>(std::move(weights), plan, options, std::move(group));
}

}  // namespace lorikeet::model
