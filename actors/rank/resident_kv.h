// A rank's KV cache in memory that outlives its process: the memory itself is the region "kv.memory", and what it is
// the sealed region "kv". What it holds nobody checks: the engine knows which positions were computed
// (engine::Engine::ranks_lost), as long as it is the memory that the group served with (RankGroup::keeps_kv).
//
// Threads: the rank's step thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "actors/rank/rank_memory.h"

namespace lorikeet::actors {

struct ResidentKv {
  std::string what;  // of which model, rank, device, in which layout: what else must be alike
  RegionKind kind = RegionKind::shared;
  uint64_t bytes = 0;
  int32_t num_blocks = 0;
  uint64_t epoch = 0;  // of the group with which it was made
};

struct LeftKv {
  ResidentKv is;
  Descriptor memory;
};

// What a predecessor has left, if it is what is wanted; else it is let go of, and the reason said.
std::optional<LeftKv> take_kv(RankMemory& memory, const std::string& what, RegionKind kind);

// Nobody holds it any more.
void drop_kv(RankMemory& memory);

// Has it held. Where that fails it ends with this process, and the reason is said.
void hold_kv(RankMemory& memory, const ResidentKv& is, const Descriptor& descriptor);

}  // namespace lorikeet::actors
