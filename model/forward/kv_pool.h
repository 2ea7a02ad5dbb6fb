// The KV cache in a rank's device memory.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/kv_cache.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/cuda_model.h"

namespace lorikeet::model {

// One rank's keys and values of all layers.
class KvPool {
 public:
  static Result<KvPool> make(const ShardPlan& plan, int rank, const CudaModelOptions& options, int32_t num_blocks,
                             KvMemory memory = {});
  static uint64_t block_bytes(const ShardPlan& plan, int rank, const CudaModelOptions& options);
  // Where the layers lie in memory of block_bytes for each block.
  static std::vector<kernels::KvCacheLayer> layers_in(void* memory, const ShardPlan& plan, int rank,
                                                      const CudaModelOptions& options, int32_t num_blocks);

  const kernels::KvCacheLayer& layer(int32_t i) const { return layers_[static_cast<size_t>(i)]; }

 private:
  kernels::DeviceBuffer memory_;
  std::vector<kernels::KvCacheLayer> layers_;
};

}  // namespace lorikeet::model
