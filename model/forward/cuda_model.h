// The CUDA backend of model/forward/rank_model.h: weights in device memory, activations in fp16 or bf16 with the
// residual stream in float, a paged KV cache, decode steps as captured graphs, adapters in slots that graphs read
// through tables.
//
// A row's result does not depend on the other rows of a step, as long as steps have at most kInt4DecodeRows tokens;
// larger ones go through other products, whose sums are formed in another order. Neither does a position's on whether it
// is the only one of its row, where the row asks for that (BatchRow::decode).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/collective/device_collective.h"
#include "kernels/base/device.h"
#include "kernels/base/kv_cache.h"
#include "model/forward/rank_model.h"

namespace lorikeet::kernels {
class PeerMemory;
}  // namespace lorikeet::kernels

namespace lorikeet::model {

class SlotRecords;

// Device memory for the adapter slots that outlives the model, and what is written down of them
// (model/forward/resident_device_adapters.h).
struct AdapterMemory {
  std::shared_ptr<kernels::PeerMemory> memory;  // null: the model takes its own
  std::shared_ptr<SlotRecords> records;         // of the slots in it; null without it
};

// Of the memory of slots, on top: a slot's layers each need a span of their own, and smaller adapters leave gaps behind
// that larger ones do not fill.
inline constexpr uint64_t kLoraSlackShare = 16;

struct CudaModelOptions {
  int32_t block_size = 16;                     // positions in a KV block: a power of two, at least 8
  int32_t max_num_seqs = 256;                  // rows of a step, at most
  int32_t max_num_batched_tokens = 2048;       // tokens of a step, at most
  int32_t max_model_len = 4096;                // positions of a sequence, at most
  kernels::Dtype dtype = kernels::Dtype::f16;  // of the activations: F16 or BF16
  kernels::KvDtype kv_dtype = kernels::KvDtype::f16;

  int32_t num_slots = 8;       // adapter slots; 0: no adapters
  int32_t max_lora_rank = 64;  // of any adapter
  uint64_t lora_bytes = 0;  // for the weights of all slots; 0: what num_slots adapters of max_lora_rank, or of rank 64
                            // where that is less, need on all layers, but at most an eighth of the device
  AdapterMemory adapter_memory;

  // Other processes compute on the device at the same time. Kernels whose blocks wait for each other are avoided then:
  // two of them could keep each other's blocks off the device for ever.
  // They are avoided, too, where the device's multi-process service is on.
  bool shares_device = false;

  int load_threads = 1;
  std::function<void(int, int)> progress;  // (done, total) layers loaded, never two calls at once
  bool time_steps = false;                 // keep the times that step_times() gives
};

// Device memory for a KV cache that outlives the model.
struct KvMemory {
  std::shared_ptr<kernels::PeerMemory> memory;  // kv_block_bytes() for each block; null: the model takes its own
  bool holds_kv = false;                        // what is in it stays
};

// Made in two parts, since how many KV blocks fit is known once the weights are on the device, and is then agreed upon
// with the other ranks.
//
// Threads: as model/forward/rank_model.h; load, start and reset come from the thread that runs the steps. Everything
// acts on the device that this thread had chosen when it loaded the model.
class CudaModel : public RankModel {
 public:
  // The digests of the adapters that were found in options.adapter_memory, by slot; empty: nothing.
  virtual std::vector<std::string> adapters_left() const = 0;

  // What the weights take, and all of it with workspaces and adapters: bytes of device memory.
  virtual uint64_t weight_bytes() const = 0;
  virtual uint64_t device_bytes() const = 0;

  // Makes the KV cache and captures the graphs: all of them, or, since somebody waits, each behind the first step of its
  // class. The ranks sum in every capture, so all of a group say the same. No step is begun before. `group` is null on a
  // single rank. Fails where memory runs out. Throws as begin_step does.
  virtual Result<void> start(int32_t num_blocks, std::shared_ptr<comm::DeviceCollective> group, KvMemory kv,
                             bool capture_all) = 0;
  Result<void> start(int32_t num_blocks, std::shared_ptr<comm::DeviceCollective> group) {
    return start(num_blocks, std::move(group), {}, true);
  }

  // Takes a new communicator in place of one that has died, ends all steps in flight and captures the graphs anew, as
  // start does. The KV cache holds what it held but where those steps write. Fails and throws as start does.
  virtual Result<void> reset(std::shared_ptr<comm::DeviceCollective> group, bool capture_all) = 0;
  Result<void> reset(std::shared_ptr<comm::DeviceCollective> group) { return reset(std::move(group), true); }

  // Graphs captured so far, and steps that were replays of one.
  virtual int64_t graphs_captured() const = 0;
  virtual int64_t graph_replays() const = 0;

  // Steps with adapters so far, by who applied them: the int4 products, or kernels of LoRA's own.
  struct LoraSteps {
    int64_t fused = 0;
    int64_t apart = 0;
  };
  virtual LoraSteps lora_steps() const = 0;

  // Behind start(), over ranks: steps so far whose prompts ran in parts beside the sums.
  virtual int64_t steps_in_parts() const = 0;
};

// Puts the weights of `rank` on the calling thread's device: from `source`, or random ones where it is null. Fails with
// the source's reason, where memory runs out, and for sizes that the kernels do not take.
Result<std::unique_ptr<CudaModel>> load_cuda_model(const WeightSource* source, const ShardPlan& plan, int rank,
                                                   const CudaModelOptions& options);

// What it does first: the weights alone.
struct DeviceWeights;
Result<DeviceWeights> put_weights_on_device(const WeightSource* source, const ShardPlan& plan, int rank,
                                            const CudaModelOptions& options);

// The same with weights that are there already.
Result<std::unique_ptr<CudaModel>> make_cuda_model(DeviceWeights weights, const ShardPlan& plan, int rank,
                                                   const CudaModelOptions& options);

// Bytes for the KV cache on a device of which this process may use the share `utilization` (0 to 1): what is left of
// that share after `device_bytes`, the context and the library's memory, and no more than what is free. Fails where
// nothing is left.
Result<uint64_t> kv_cache_budget(const kernels::DeviceMemory& memory, uint64_t device_bytes, double utilization);

}  // namespace lorikeet::model
