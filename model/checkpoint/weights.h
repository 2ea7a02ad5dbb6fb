// The base weights of one rank, in the forms that the kernels take.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "kernels/dense/dense_weight.h"
#include "kernels/int4/int4_view.h"
#include "model/checkpoint/shard_plan.h"
#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {

// One rank's part of y = x W^T + b. A row-parallel layer has no bias here (Qwen has none).
struct LinearWeights {
  // A view lies in the rank's `memory`.
  std::variant<kernels::Int4Weight, kernels::DenseWeight, kernels::Int4View> weight;
  std::vector<float> bias;  // [outputs] or empty

  // Of either kind; nullopt where the weight is dense.
  std::optional<kernels::Int4View> int4() const;
};

struct LayerWeights {
  std::vector<float> input_norm, post_attention_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;                   // [head_dim], Qwen3; else empty
  std::array<LinearWeights, kNumProjections> linear;   // indexed by Projection

  std::vector<float>& norm(NormKind kind);
  const LinearWeights& at(Projection p) const { return linear[static_cast<size_t>(p)]; }
  LinearWeights& at(Projection p) { return linear[static_cast<size_t>(p)]; }
};

struct RankWeights {
  kernels::DenseWeight embedding;  // [vocab, hidden], whole on every rank
  kernels::DenseWeight lm_head;    // [vocab shard, hidden]
  std::vector<float> final_norm;   // [hidden]
  std::vector<LayerWeights> layers;
  uint64_t bytes = 0;                  // what this rank holds
  std::shared_ptr<const void> memory;  // that the weights lie in, where they do not hold their own
};

// Loads the part of the checkpoint in `dir` that `rank` holds. Tensors are read and cut one by one, so no second full
// copy is ever in memory, and nothing of what is loaded refers to the files: what happens to them later changes no
// answer. A file that is written to while it is being read is an error. Layers are shared out to `threads` threads that
// live for this call; progress(done, total) is called after every layer, from whichever thread, never two at once.
// Errors name file, tensor and reason.
Result<RankWeights> load_rank_weights(const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                      const std::function<void(int, int)>& progress = {}, int threads = 1);

// Takes weights over as they are loaded.
class WeightSink {
 public:
  virtual ~WeightSink() = default;
  virtual Result<void> put_outer(RankWeights outer) = 0;                    // everything but the layers; once
  virtual Result<void> put_layer(int32_t layer, LayerWeights weights) = 0;  // each once, never two at once
};

// The same, but gives the weights to `sink` as they are loaded: beside it no more than a layer per thread is in memory.
Result<void> load_rank_weights_into(WeightSink& sink, const std::filesystem::path& dir, const ShardPlan& plan, int rank,
                                    const std::function<void(int, int)>& progress, int threads);

// The same piece by piece, for devices that take the weights over: the host then never holds them all. Quantised
// modules of 8 bits come de-quantised, as float32.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual Result<RankWeights> outer() const = 0;                // everything but the layers
  virtual Result<LayerWeights> layer(int32_t layer) const = 0;  // threads: any
};
Result<std::unique_ptr<WeightSource>> open_weights(const std::filesystem::path& dir, const ShardPlan& plan, int rank);

// Random weights of sensible size in the forms that a checkpoint of `plan`'s configuration would give: for measuring
// without a checkpoint. The whole model depends on `seed` alone, whatever the number of ranks.
RankWeights make_dummy_rank_weights(const ShardPlan& plan, int rank, uint64_t seed);

// Bytes that `weights` take; a tied lm_head is not counted twice.
uint64_t bytes_of(const RankWeights& weights, bool tied);

}  // namespace lorikeet::model
