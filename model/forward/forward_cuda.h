// The layers of one rank on the device: from token ids to the states of which logits are made.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "comm/collective/device_collective.h"
#include "kernels/attention/attention_decode_cuda.h"
#include "kernels/lora/lora_cuda.h"
#include "kernels/lora/lora_slots.h"
#include "model/forward/cuda_model.h"
#include "model/forward/kv_pool.h"
#include "model/forward/linear_cuda.h"
#include "model/forward/step_arrays.h"

namespace lorikeet::model {

// What surrounds a step's kernels.
struct StepContext {
  const KvPool& kv;
  comm::DeviceCollective* group;  // null on a single rank
  const kernels::Stream& stream;
};

// Owns the activations. Threads: one at a time, on one stream. Nothing is allocated after make; all of it may be
// captured, with what model/forward/linear_cuda.h says of large steps.
class CudaForward {
 public:
  // `weights` and `slots` (null: no adapters) must outlive it. Logits are made of up to logits_rows tokens at a time.
  static Result<CudaForward> make(const ShardPlan& plan, int rank, const CudaModelOptions& options,
                                  const DeviceWeights& weights, const kernels::LoraSlots* slots, int32_t logits_rows,
                                  int64_t logits_stride);

  // Runs the layers over size.tokens tokens. `arrays` are on the device; `drawn` are the draws of the step before.
  // With size.lora_bytes, the tokens' adapters are applied. Over ranks, agree_on_parts comes first.
  void layers(const StepSize& size, const StepArrays& arrays, const int32_t* drawn, const StepContext& context);

  // With every new group, by all ranks: whether and where prompts are made in parts, which all must do alike. Waits, and
  // throws as the group does.
  void agree_on_parts(const StepContext& context);

  // After layers: the logits of all tokens of the step, at most logits_rows.
  void logits_of_all(const StepSize& size, const StepArrays& arrays, const StepContext& context);

  // After layers: the logits of tokens[0 .. rows). `lora_rows` describes their adapters, of the highest rank that is
  // served; null: none has one.
  void logits_of(const int32_t* tokens, int32_t rows, const unsigned char* lora_rows, const StepContext& context);

  float* logits() const { return logits_.as<float>(); }  // [rows, logits_stride]
  kernels::LoraRowPlan lora_plan(int32_t rows, int32_t max_rank) const;
  // Up to which rank a decode step of so many rows with adapters of `highest` has room: the smallest that does, as the
  // int4 products complete their outputs themselves only where ranks are low. Ascending, what a step may ask for.
  int32_t lora_rank_class(int32_t rows, int32_t highest) const;
  std::vector<int32_t> lora_rank_classes(int32_t rows) const;
  // Whether int4 products complete their outputs by the adapters of such a decode step, rather than kernels of LoRA's
  // own.
  bool fuses_lora(const StepSize& size) const;
  int64_t steps_in_parts() const { return steps_in_parts_; }           // so far (forward_parts_cuda.cc)
  const int32_t* resolved() const { return resolved_.as<int32_t>(); }  // [tokens]: the step's ids
  const kernels::DecodeDivision& decode_division() const { return decode_division_; }
  uint64_t bytes() const { return bytes_; }

 private:
  CudaForward(const ShardPlan& plan, int rank, const CudaModelOptions& options, const DeviceWeights& weights,
              const kernels::LoraSlots* slots, CudaLinear linear);

  Result<void> allocate(int32_t logits_rows);
  void embed(const StepSize& size, const StepArrays& arrays, const int32_t* drawn, const StepContext& context);
  void attention(int32_t layer, const StepSize& size, const StepArrays& arrays, const StepContext& context);
  void mlp(int32_t layer, const StepSize& size, const StepArrays& arrays, const StepContext& context);
  // With `delta`, this rank's part of a sum where sums_in_norm.
  void norm(const float* weight, const void* delta, const int32_t* rows, int32_t tokens, void* out,
            const StepContext& context, uint32_t* done = nullptr);
  // The norm before the product that begins with `first`: what the product makes it of, or run into normed_.
  ProductExtras norm_before(int32_t layer, Projection first, const float* weight, const void* delta,
                            const StepSize& size, const StepContext& context);
  void head(const void* x, int32_t rows, const unsigned char* lora_rows, int32_t max_rank, const StepContext& context);
  // Sums over the ranks what a product has left in delta_, unless the norm behind it does so.
  void reduce(int32_t tokens, const StepContext& context);
  bool sums_in_norm(int32_t tokens, const StepContext& context) const;

  // Prompts over ranks (forward_parts_cuda.cc): the products in front of a sum make some of the tokens at a time, so that
  // a part's sum and norm run beside the next part's product.
  Result<void> prepare_parts();
  // Of a step of that size.
  void choose_parts(const StepSize& size, const StepContext& context);
  bool in_parts() const { return parts_[1] > 0; }  // of the step that is being queued
  // y = W x for the product that begins with o or down; the sums; the residual stream and normed_ by the norm of
  // `weight`. None of it has been waited for.
  void project_parts(int32_t layer, Projection first, const DeviceRows& x, const float* weight, const StepSize& size,
                     const StepContext& context);
  // silu(gate) * up of normed_, each part when it is there.
  void silu_parts(const DeviceLinear& gate_up, const DeviceRows& y, const StepSize& size, const StepContext& context);
  void wait_for_parts(const StepContext& context);

  kernels::LoraLinear lora_linear(int32_t layer, Projection first) const;
  kernels::LoraArgs lora_args(int32_t layer, Projection first, const StepSize& size, const StepArrays& arrays) const;
  // A layer's product that begins with projection `first`.
  const DeviceLinear& linear_of(int32_t layer, Projection first) const;
  // Whether that product completes its outputs by the step's adapters itself; can: if the step's products do so at all.
  bool fuses_lora(int32_t layer, Projection first, const StepSize& size) const;
  bool can_fuse_lora(int32_t layer, Projection first, const StepSize& size) const;
  // What such a product has room for; 0 projections: it does not.
  kernels::Int4LoraSize fused_size(int32_t layer, Projection first, const StepSize& size) const;
  // Whether a kernel of LoRA's reads the product's x from memory.
  bool takes_x_for_lora(int32_t layer, Projection first, const StepSize& size);
  kernels::Int4Lora fused_lora(const kernels::LoraArgs& lora, const StepSize& size);
  // Where the kernels that make the x of that product count their blocks; null: the step's adapters do not ask.
  uint32_t* done_counter(int32_t layer, Projection first, const StepSize& size);
  // y = W x and what the adapters add. Returns the number of blocks that add to lora.done.
  int32_t project(int32_t layer, Projection first, const DeviceRows& x, const DeviceRows& y, kernels::LoraArgs lora,
                  const StepSize& size, const StepContext& context, ProductExtras extras = {});

  ShardPlan plan_;
  int rank_;
  CudaModelOptions options_;
  const DeviceWeights* weights_;
  const kernels::LoraSlots* slots_;
  CudaLinear linear_;
  std::unique_ptr<kernels::LoraProducts> lora_;
  std::map<int32_t, kernels::Int4LoraScratch> fused_scratch_;  // by class of ranks
  int32_t fused_turn_ = 0;                                     // of the step that is being queued
  bool step_fuses_ = false;
  int64_t steps_in_parts_ = 0;
  int32_t heads_, kv_heads_, intermediate_;
  kernels::DecodeDivision decode_division_;
  const bool shares_device_;
  static constexpr size_t kParts = 2;
  // What a rank says of the products o, gate and up, and down.
  struct PartsOffer {
    int32_t takes = 0;  // whether they may be made in parts
    int32_t multiprocessors = 0;
    std::array<int32_t, 3> outputs = {}, inputs = {};
  };
  struct PartEvents {
    kernels::Event made, summed;
  };
  PartsOffer own_parts_;
  PartsOffer agreed_parts_;               // rank 0's, where all take parts
  kernels::DeviceBuffer gathered_parts_;  // PartsOffer [ranks]
  kernels::Stream sums_stream_;           // over several ranks, with the events
  std::array<PartEvents, kParts> part_events_;
  std::array<int32_t, kParts> parts_ = {};  // tokens of each; 0: the step that is being queued is made at once
  float* stream_ = nullptr;  // the residual stream of the step that is being queued: residual_ or residual_b_
  float rope_factor_ = 1;
  int64_t logits_stride_ = 0;
  uint64_t bytes_ = 0;

  kernels::DeviceBuffer resolved_;     // int32 [tokens]
  kernels::DeviceBuffer residual_;     // float [tokens, hidden]: of a step's begin and end
  kernels::DeviceBuffer residual_b_;   // float [kNormRows, hidden]: in turn with it where products make the norms
  kernels::DeviceBuffer normed_;       // [tokens, hidden]
  kernels::DeviceBuffer delta_;        // [tokens, hidden]
  kernels::DeviceBuffer qkv_;          // [tokens, (heads + 2 kv_heads) head_dim]
  kernels::DeviceBuffer mixed_;        // [tokens, heads head_dim]
  kernels::DeviceBuffer gate_up_;      // [tokens, 2 intermediate]
  kernels::DeviceBuffer activated_;    // [tokens, intermediate]
  kernels::DeviceBuffer angles_;       // float [tokens, head_dim]
  kernels::DeviceBuffer frequencies_;  // float [head_dim / 2]
  kernels::DeviceBuffer attention_workspace_;
  kernels::DeviceBuffer done_counters_;  // uint32 [layers, projections]
  kernels::DeviceBuffer head_input_;     // [logits rows, hidden]
  kernels::DeviceBuffer logits_;         // float [logits rows, logits_stride]
};

}  // namespace lorikeet::model
