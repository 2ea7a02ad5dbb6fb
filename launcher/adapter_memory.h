// How much memory adapters may take (slots on the ranks, copies in the head) where the flags leave it to the program.
#pragma once

#include <cstdint>
#include <string>

#include "actors/wire/options.h"
#include "kernels/base/error.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::launcher {

inline constexpr int32_t kSlotsUnknown = 8;  // where the device of a rank is another host's
inline constexpr int32_t kFewestSlots = 8, kMostSlots = 512;

// The memory that shares are taken of, in bytes; 0: not known here.
struct MemoryFacts {
  uint64_t host = 0;         // what this process may have of the host's memory
  uint64_t device = 0;       // of one GPU
  int32_t devices = 1;       // GPUs; more ranks share them
  bool of_all_ranks = true;  // else some are on other hosts, whose memory is not known
};
MemoryFacts memory_facts(const std::string& device);

// Sets max_loras, lora_memory_bytes and max_cpu_lora_bytes of options whose other values are decided.
//
// max_loras: a number of slots, or "auto": each rank uses a sixteenth of its device's memory for adapters (on the CPU all
// ranks together: of the host's), and has as many slots as adapters of rank 16 on all projections fit (of --max-lora-rank
// where that is less). The budget counts an adapter's real size, so smaller ones leave room to others and larger ones take
// that of several. Where the ranks' memory is not known, kSlotsUnknown slots.
// max_cpu_lora_bytes: a size, or "auto": an eighth of the host's memory.
Result<void> choose_adapter_memory(const std::string& max_loras, const std::string& max_cpu_lora_bytes,
                                   const model::ShardPlan& plan, const MemoryFacts& facts,
                                   actors::ServerOptions& options);

}  // namespace lorikeet::launcher
