// The adapter slots of a CUDA rank in device memory that outlives its process (kernels/peer/peer_memory.h): filled by the
// rank, and taken over as they are by its successors, by what slot_records.h says of each. Adapters with DoRA are not among
// what is taken over: their factors are agreed upon by all ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/base/descriptor.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/cuda_model.h"

namespace lorikeet::model {

// For options.adapter_memory, on the calling thread's device. `what`: of which weights, rank and device it is.
// options.num_slots is above 0.
Result<AdapterMemory> make_adapter_memory(const ShardPlan& plan, int rank, const CudaModelOptions& options,
                                          const std::string& what);

// What another process has left: the records' descriptor, and the memory's. Fails, saying why, where it is of another
// shape. What the slots hold is looked at when a model takes them over.
Result<AdapterMemory> attach_adapter_memory(Descriptor records, const Descriptor& memory, const ShardPlan& plan,
                                            int rank, const CudaModelOptions& options, const std::string& what);

}  // namespace lorikeet::model
