#include "model/forward/step_memory.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "kernels/attention/attention_prefill_cuda.h"
#include "kernels/cuda/pinned_copy_cuda.h"
#include "kernels/lora/lora_rows.h"

namespace lorikeet::model {

int64_t table_entries(const StepBatch& batch, int32_t block_size) {
  int64_t entries = 0;
  for (const BatchRow& row : batch.rows) {
    entries += (row.start + static_cast<int32_t>(row.token_ids.size()) + block_size - 1) / block_size;
  }
  return entries;
}

Result<StepMemory> StepMemory::make(const CudaModelOptions& options, const ModelConfig& config, int32_t logits_rows,
                                    bool adapters) {
  // The largest step: every array as long as it can be.
  const int32_t rows = options.max_num_seqs;
  const int32_t tokens = options.max_num_batched_tokens;
  StepSize size;
  size.tokens = tokens;
  size.decode_rows = size.prefill_rows = size.frequency_tables = rows;
  size.query_tiles = rows + tokens / kernels::kPrefillQueryTile;
  if (adapters) size.lora_bytes = kernels::LoraRowPlan(tokens, options.num_slots, options.max_lora_rank).bytes();
  Carver carver(nullptr);
  const StepArrays arrays(size, config.head_dim, carver);
  carver.take<int32_t>(int64_t{rows} * ((options.max_model_len + options.block_size - 1) / options.block_size));
  // Portions are cut by rows of logits, or, at the worst, one per sampled row. Each has arrays of its own, aligned.
  const int64_t portions = tokens / logits_rows + 1 + rows;
  carver.take<int32_t>(tokens);
  carver.take<kernels::DrawRow>(rows);
  carver.take<kernels::LogprobRow>(int64_t{tokens} + rows);
  uint64_t of_portion = 4 * 16;
  if (adapters) of_portion += kernels::LoraRowPlan(logits_rows, options.num_slots, options.max_lora_rank).bytes();
  carver.take<unsigned char>(portions * static_cast<int64_t>(of_portion));

  StepMemory memory;
  auto device = kernels::DeviceBuffer::allocate(carver.used(), "the description of steps");
  if (!device) return tl::unexpected(device.error());
  memory.device_ = *std::move(device);
  for (kernels::PinnedBuffer& buffer : memory.host_) {
    auto made = kernels::PinnedBuffer::allocate(carver.used(), "the description of steps");
    if (!made) return tl::unexpected(made.error());
    buffer = *std::move(made);
  }
  return memory;
}

StepBlocks StepMemory::blocks(size_t place, const StepSize& size, int64_t entries,
                              std::span<const PortionSize> portions, int32_t head_dim) {
  Carver host(host_[place].data());
  Carver device(device_.data());
  StepBlocks blocks{StepArrays(size, head_dim, host), StepArrays(size, head_dim, device), {}, {}, 0};
  host.take<int32_t>(entries);
  device.take<int32_t>(entries);
  for (const PortionSize& portion : portions) {
    blocks.host_samples.emplace_back(*portion.portion, portion.lora_bytes, host);
    blocks.device_samples.emplace_back(*portion.portion, portion.lora_bytes, device);
  }
  blocks.bytes = host.used();
  CHECK_LE(blocks.bytes, device_.bytes())
      << "a step of " << size.tokens << " tokens, " << portions.size() << " portions";
  return blocks;
}

void StepMemory::send(size_t place, uint64_t bytes, const kernels::Stream& stream) const {
  kernels::copy_pinned_to_device(device_.data(), host_[place].data(), bytes, stream);
}

std::vector<PortionResults> StepMemory::results(size_t place, size_t rows, std::span<const SamplePortion> portions,
                                                int ranks, const int32_t*& drawn) {
  const auto carve = [&](void* base, std::vector<PortionResults>* to) {
    Carver carver(base);
    drawn = carver.take<int32_t>(static_cast<int64_t>(rows));
    for (const SamplePortion& portion : portions) {
      const PortionResults part(portion, ranks, carver);
      if (to != nullptr) to->push_back(part);
    }
    return carver.used();
  };
  kernels::PinnedBuffer& buffer = results_[place];
  const uint64_t needed = carve(nullptr, nullptr);
  if (buffer.bytes() < needed) {
    auto made = kernels::PinnedBuffer::allocate(std::max(needed, 2 * buffer.bytes()), "the results of steps");
    CHECK(made) << made.error().message;
    buffer = *std::move(made);
  }
  std::vector<PortionResults> results;
  carve(buffer.data(), &results);
  return results;
}

}  // namespace lorikeet::model
