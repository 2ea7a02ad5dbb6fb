// The adapters of one rank on the device, and the norms that DoRA adapters need of the base weights.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/lora/lora_slots.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_slice.h"
#include "model/forward/cuda_model.h"
#include "model/forward/device_weights.h"

namespace lorikeet::model {

// Threads: one thread at a time calls set, clear and squared_norms, another may run steps meanwhile
// (kernels/lora/lora_slots.h).
class CudaAdapters {
 public:
  // `weights` must outlive it.
  static Result<std::unique_ptr<CudaAdapters>> make(const ShardPlan& plan, int rank, const CudaModelOptions& options,
                                                    const DeviceWeights& weights);

  Result<void> set(int32_t slot, const Adapter& part);
  Result<void> set(int32_t slot, const AdapterSlice& slice, const uint8_t* bytes);
  void clear(int32_t slot) { slots_.clear(slot); }

  // RankModel::dora_squared_norms.
  std::vector<std::vector<float>> squared_norms(const Adapter& part);

  const kernels::LoraSlots& slots() const { return slots_; }
  uint64_t bytes() const { return slots_.capacity_bytes() + scratch_.bytes() + pair_.bytes() + norms_.bytes(); }

 private:
  CudaAdapters(kernels::Dtype dtype, const DeviceWeights& weights, kernels::LoraSlots slots)
      : dtype_(dtype), weights_(weights), slots_(std::move(slots)) {}

  std::vector<float> squared_norms(const LoraPair& pair, int32_t layer, Projection p);

  const kernels::Dtype dtype_;
  const DeviceWeights& weights_;
  kernels::LoraSlots slots_;
  kernels::Stream stream_;
  kernels::DeviceBuffer scratch_;  // de-quantised rows
  kernels::DeviceBuffer pair_;     // A, then B, in float
  kernels::DeviceBuffer norms_;
};

}  // namespace lorikeet::model
