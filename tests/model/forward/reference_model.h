// A plain float64 forward pass of a whole model with an adapter: no cache, no batch, no ranks. Written from the
// formulas of transformers' modeling_qwen2.py, modeling_qwen3.py and modeling_rope_utils.py (YaRN), of Qwen v1's
// modeling_qwen.py (dynamic NTK, log-n attention) and of peft's LoRA and DoRA layers.
#pragma once

#include <cstdint>
#include <vector>

#include "model/adapter/adapter.h"
#include "model/checkpoint/weights.h"

namespace lorikeet::tests {

class ReferenceModel {
 public:
  using Rows = std::vector<std::vector<double>>;

  struct Linear {
    Rows weight;  // [outputs, inputs]
    std::vector<double> bias;
  };
  struct Layer {
    std::vector<double> input_norm, post_attention_norm, q_norm, k_norm;
    std::vector<Linear> linear;  // by projection
  };
  struct Weights {
    Rows embedding, lm_head;  // [vocab, hidden]
    std::vector<double> final_norm;
    std::vector<Layer> layers;
  };

  ReferenceModel(const model::ModelConfig& config, Weights weights);
  // `weights` of a group of one rank.
  ReferenceModel(const model::ModelConfig& config, const model::RankWeights& weights);

  // logits[i][token]: of the token at position i + 1, given ids[0 .. i]. `adapter`: whole, or null. `prompt_size`: what
  // Qwen v1 takes its RoPE base from.
  Rows logits(const std::vector<int32_t>& ids, const model::Adapter* adapter, size_t prompt_size = 1) const;

 private:
  Rows project(const Linear& linear, const model::LoraPair* pair, const Rows& x) const;
  Rows normed(const Rows& x, const std::vector<double>& weight) const;
  Rows attention(const Layer& layer, const model::LoraLayer* lora, const Rows& x, size_t prompt_size) const;
  void shape_heads(Rows& x, int32_t heads, const std::vector<double>& norm, size_t prompt_size) const;
  std::vector<double> frequencies(size_t prompt_size) const;

  const model::ModelConfig config_;
  Weights weights_;
};

}  // namespace lorikeet::tests
