// How much memory adapters may take where the flags leave it open: slots on the ranks, and the head's copies.
#pragma once

#include <cstdint>
#include <string>

#include "actors/wire/options.h"
#include "kernels/base/error.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::launcher {

inline constexpr int32_t kSlotsUnknown = 8;  // where the device of a rank is another host's
inline constexpr int32_t kFewestSlots = 8, kMostSlots = 512;

// What the shares are taken of, in bytes; 0: not known here.
struct MemoryFacts {
  uint64_t host = 0;         // what this process may have of the host's memory
  uint64_t device = 0;       // of one GPU
  int32_t devices = 1;       // GPUs; more ranks share them
  bool of_all_ranks = true;  // else some are on other hosts, whose memory is not known
};
MemoryFacts memory_facts(const std::string& device);

// Sets max_loras, lora_memory_bytes and max_cpu_lora_bytes of options whose other values are decided.
//
// max_loras "auto": each rank has a sixteenth of its device's memory for adapters (on the CPU: the ranks together of the
// host's), and so many slots as adapters fit that have rank 16 on all projections, or --max-lora-rank where that is less.
// Adapters are counted by what they really take, so smaller ones leave slots to others, and larger ones take the room of
// several. kSlotsUnknown where the ranks' memory is not known. A number: so many slots.
// max_cpu_lora_bytes "auto": an eighth of the host's memory; else a size.
Result<void> choose_adapter_memory(const std::string& max_loras, const std::string& max_cpu_lora_bytes,
                                   const model::ShardPlan& plan, const MemoryFacts& facts,
                                   actors::ServerOptions& options);

}  // namespace lorikeet::launcher
