// A plain float64 forward pass of a whole model with an adapter: no cache, no batch, no ranks. Written from the
// formulas of transformers' modeling_qwen2.py and modeling_qwen3.py and of peft's LoRA and DoRA layers.
#pragma once

#include <cstdint>
#include <vector>

#include "model/adapter.h"
#include "model/weights.h"

namespace lorikeet::tests {

class ReferenceModel {
 public:
  // `weights` of a group of one rank.
  ReferenceModel(const model::ModelConfig& config, const model::RankWeights& weights);

  // logits[i][token]: of the token at position i + 1, given ids[0 .. i]. `adapter`: whole, or null.
  std::vector<std::vector<double>> logits(const std::vector<int32_t>& ids, const model::Adapter* adapter) const;

 private:
  using Rows = std::vector<std::vector<double>>;

  struct Linear {
    Rows weight;  // [outputs, inputs]
    std::vector<double> bias;
  };
  struct Layer {
    std::vector<double> input_norm, post_attention_norm, q_norm, k_norm;
    std::vector<Linear> linear;  // by projection
  };

  Rows project(const Linear& linear, const model::LoraPair* pair, const Rows& x) const;
  Rows normed(const Rows& x, const std::vector<double>& weight) const;
  Rows attention(const Layer& layer, const model::LoraLayer* lora, const Rows& x) const;
  void shape_heads(Rows& x, int32_t heads, const std::vector<double>& norm) const;

  const model::ModelConfig config_;
  Rows embedding_;
  Linear lm_head_;
  std::vector<double> final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace lorikeet::tests
