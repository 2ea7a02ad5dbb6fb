// One projection of one layer on the CPU: the base product, the adapters of the batch, the bias.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/lora.h"
#include "kernels/thread_pool.h"
#include "model/adapter.h"
#include "model/weights.h"

namespace lorikeet::model {

// The adapters of a step's tokens: each distinct one with the rows that take it.
class BatchAdapters {
 public:
  // adapter_of_token: null where a token takes the base model.
  explicit BatchAdapters(const std::vector<const Adapter*>& adapter_of_token);

  bool any() const { return !groups_.empty(); }
  std::vector<kernels::LoraGroup> of_projection(int32_t layer, Projection p) const;
  std::vector<kernels::LoraGroup> of_lm_head(
      const std::vector<int32_t>& tokens) const;  // rows are indices into `tokens`

  // Adds the embedding deltas: out [tokens, hidden].
  void add_embedding(const int32_t* ids, float* out) const;

 private:
  struct Group {
    const Adapter* adapter;
    std::vector<int32_t> tokens;
  };
  std::vector<Group> groups_;
};

kernels::LoraWeights lora_weights(const LoraPair& pair);

// y [m, outputs] = f * (x W^T + scale * B (A x)) + bias for x [m, inputs]; f where an adapter is a DoRA. In a
// row-parallel layer y is this rank's part of the sum.
void linear_cpu(const LinearWeights& linear, const std::vector<kernels::LoraGroup>& adapters, const float* x, int32_t m,
                float* y, kernels::ThreadPool& pool);

int32_t outputs_of(const LinearWeights& linear);

}  // namespace lorikeet::model
