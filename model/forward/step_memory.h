// The memory through which steps are described to the device and their results come back: one set on the host for each
// step in flight, and one block on the device, which steps use one after another.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/base/device.h"
#include "model/forward/cuda_model.h"
#include "model/forward/sampler_cuda.h"
#include "model/forward/step_arrays.h"

namespace lorikeet::model {

struct PortionSize {
  const SamplePortion* portion = nullptr;
  uint64_t lora_bytes = 0;  // of the description of its logits rows' adapters
};

// A step's block on both sides.
struct StepBlocks {
  StepArrays host, device;
  std::vector<SampleArrays> host_samples, device_samples;  // [portions]
  uint64_t bytes = 0;
};

// Entries of the block tables of all rows.
int64_t table_entries(const StepBatch& batch, int32_t block_size);

class StepMemory {
 public:
  // For portions of up to logits_rows rows of logits.
  static Result<StepMemory> make(const CudaModelOptions& options, const ModelConfig& config, int32_t logits_rows,
                                 bool adapters);

  // `place` is the step's place among those in flight. A step larger than what the options say is a broken invariant.
  StepBlocks blocks(size_t place, const StepSize& size, int64_t entries, std::span<const PortionSize> portions,
                    int32_t head_dim);
  void send(size_t place, uint64_t bytes, const kernels::Stream& stream) const;

  // Pinned memory for the results of all portions and the draws [rows].
  std::vector<PortionResults> results(size_t place, size_t rows, std::span<const SamplePortion> portions, int ranks,
                                      const int32_t*& drawn);

  uint64_t device_bytes() const { return device_.bytes(); }

 private:
  kernels::DeviceBuffer device_;
  std::array<kernels::PinnedBuffer, RankModel::kMaxStepsInFlight> host_;
  std::array<kernels::PinnedBuffer, RankModel::kMaxStepsInFlight> results_;  // grow as they must
};

}  // namespace lorikeet::model
