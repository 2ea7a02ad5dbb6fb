// A rank's KV cache in memory that outlives its process: the memory is the region "kv.memory", its description the sealed
// region "kv". Its content is not checked: the engine knows which positions were computed (engine::Engine::ranks_lost),
// provided it is the memory that the group served with (RankGroup::keeps_kv).
//
// Threads: the rank's step thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "actors/rank/rank_memory.h"

namespace lorikeet::actors {

struct ResidentKv {
  std::string what;  // model, rank, device and layout, which must be the same, too
  RegionKind kind = RegionKind::shared;
  uint64_t bytes = 0;
  int32_t num_blocks = 0;
  uint64_t epoch = 0;  // of the group with which it was made
};

struct LeftKv {
  ResidentKv is;
  Descriptor memory;
};

// The KV cache that a predecessor left, if it fits; else drops it and says why.
std::optional<LeftKv> take_kv(RankMemory& memory, const std::string& what, RegionKind kind);

// Has the supervisor drop it.
void drop_kv(RankMemory& memory);

// Has the supervisor hold it. Where that fails the cache ends with this process, and the reason is said.
void hold_kv(RankMemory& memory, const ResidentKv& is, const Descriptor& descriptor);

}  // namespace lorikeet::actors
