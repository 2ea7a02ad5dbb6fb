#include "model/forward/resident_device_adapters.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/peer/peer_memory.h"
#include "model/forward/cuda_adapters.h"
#include "model/forward/slot_records.h"

namespace lorikeet::model {
namespace {

SlotRecordShape shape_of(const ShardPlan& plan, int rank, const CudaModelOptions& options, const std::string& what) {
  SlotRecordShape shape;
  shape.what = fmt::format("lorikeet-cuda-adapters-1 of {}, rank {} of {}, {} slots in {} bytes, {}, ranks up to {}",
                           what, rank, plan.size(), options.num_slots, CudaAdapters::memory_bytes(plan, rank, options),
                           kernels::name_of(options.dtype), options.max_lora_rank);
  shape.slots = options.num_slots;
  shape.places = plan.config().num_layers * static_cast<int32_t>(kNumProjections) + 2;
  shape.spans = plan.config().num_layers + 2;
  return shape;
}

Result<AdapterMemory> together(Result<SlotRecords> records, Result<kernels::PeerMemory> memory) {
  if (!records) return tl::unexpected(records.error());
  if (!memory) return tl::unexpected(memory.error());
  return AdapterMemory{std::make_shared<kernels::PeerMemory>(*std::move(memory)),
                       std::make_shared<SlotRecords>(*std::move(records))};
}

}  // namespace

Result<AdapterMemory> make_adapter_memory(const ShardPlan& plan, int rank, const CudaModelOptions& options,
                                          const std::string& what) {
  return together(SlotRecords::make(shape_of(plan, rank, options, what)),
                  kernels::PeerMemory::make(CudaAdapters::memory_bytes(plan, rank, options)));
}

Result<AdapterMemory> attach_adapter_memory(Descriptor records, const Descriptor& memory, const ShardPlan& plan,
                                            int rank, const CudaModelOptions& options, const std::string& what) {
  auto attached = SlotRecords::attach(std::move(records), shape_of(plan, rank, options, what));
  if (!attached) return tl::unexpected(attached.error());
  return together(std::move(attached),
                  kernels::PeerMemory::attach(memory, CudaAdapters::memory_bytes(plan, rank, options)));
}

}  // namespace lorikeet::model
