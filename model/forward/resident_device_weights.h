// The weights of a CUDA rank in device memory that outlives its process (kernels/peer/peer_memory.h): moved there once
// they are loaded, and used where they lie by the rank's successors.
//
// What lies where, and a digest of each region, is in sealed memory of the host (kernels/base/resident_memory.h), as a
// safetensors image whose metadata say what it is and whose one tensor is a row of numbers. A successor believes no region
// before it has compared its digest, which takes milliseconds on the device, and takes no numbers that cannot be right.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/descriptor.h"
#include "kernels/base/dtype.h"
#include "kernels/base/resident_memory.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/device_weights.h"

namespace lorikeet::model {

struct DeviceRegion {
  Descriptor memory;
  uint64_t bytes = 0;
};

// What a process must hold for the weights to outlive it.
struct ResidentDeviceWeights {
  kernels::ResidentMemory contents;
  std::vector<DeviceRegion> regions;  // a gigabyte each, about
};

// Moves what is on the calling thread's device, a region at a time, so that no second copy is ever there. `origin`: what
// the weights were made from (model/checkpoint/resident_weights.h). Where it fails the weights are as good as before.
Result<ResidentDeviceWeights> make_resident(DeviceWeights& weights, const ShardPlan& plan, int rank,
                                            kernels::Dtype dtype, const std::string& origin);

// The weights that another process has left. `regions` in their order. Fails, saying why, where they are not those of
// this rank, device, origin and layout, or not what was left.
Result<DeviceWeights> attach_device_weights(const kernels::ResidentMemory& contents,
                                            const std::vector<Descriptor>& regions, const ShardPlan& plan, int rank,
                                            kernels::Dtype dtype, const std::string& origin);

}  // namespace lorikeet::model
