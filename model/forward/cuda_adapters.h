// The adapters of one rank on the device, written down where their memory outlives the process (slot_records.h), and the norms that DoRA adapters need of the base weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/base/polled_event.h"
#include "kernels/lora/lora_slots.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_slice.h"
#include "model/forward/cuda_model.h"
#include "model/forward/device_weights.h"
#include "model/forward/rank_model.h"
#include "model/forward/slot_records.h"

namespace lorikeet::model {

// Threads: one thread at a time calls set, record, clear and squared_norms, another may run steps meanwhile
// (kernels/lora/lora_slots.h).
class CudaAdapters {
 public:
  // `weights` must outlive it. Takes over what is in options.adapter_memory.
  static Result<std::unique_ptr<CudaAdapters>> make(const ShardPlan& plan, int rank, const CudaModelOptions& options,
                                                    const DeviceWeights& weights);

  // What the weights of all slots take: bytes of device memory.
  static uint64_t memory_bytes(const ShardPlan& plan, int rank, const CudaModelOptions& options);

  Result<void> set(int32_t slot, const Adapter& part);
  Result<void> set(int32_t slot, const AdapterSlice& slice, const SliceBytes& bytes);
  void record(int32_t slot, const AdapterSlice& slice);  // what the latter has put there
  void clear(int32_t slot);

  // The digests of what was taken over, by slot; empty: nothing.
  const std::vector<std::string>& left() const { return left_; }

  // RankModel::dora_squared_norms.
  std::vector<std::vector<float>> squared_norms(const Adapter& part);

  const kernels::LoraSlots& slots() const { return slots_; }
  uint64_t bytes() const { return slots_.capacity_bytes() + scratch_.bytes() + pair_.bytes() + norms_.bytes(); }

 private:
  CudaAdapters(const CudaModelOptions& options, const DeviceWeights& weights, kernels::LoraSlots slots)
      : dtype_(options.dtype), weights_(weights), records_(options.adapter_memory.records), slots_(std::move(slots)) {}

  void take_over(const kernels::LoraGeometry& geometry);
  Result<void> take_over(int32_t slot, const SlotRecord& record, const kernels::LoraGeometry& geometry);
  Result<uint64_t> contents(int32_t slot);
  void load_digest();

  std::vector<float> squared_norms(const LoraPair& pair, int32_t layer, Projection p);

  const kernels::Dtype dtype_;
  const DeviceWeights& weights_;
  const std::shared_ptr<SlotRecords> records_;  // null: the slots end with this
  std::vector<std::string> left_;
  kernels::LoraSlots slots_;
  kernels::Stream stream_;
  kernels::DeviceBuffer scratch_;  // de-quantised rows
  kernels::DeviceBuffer pair_;     // A, then B, in float
  kernels::DeviceBuffer norms_;
  // Of a slot's contents: a word. All multiprocessors make it in some 30 us. Behind the kernels of steps, whose places it
  // would get one by one between two of them, it takes 2 to 4 ms and costs them four times as much.
  kernels::Stream digest_stream_;
  kernels::DeviceBuffer digest_;
  kernels::PinnedBuffer digest_on_host_;
  kernels::PolledEvent digested_;
};

}  // namespace lorikeet::model
