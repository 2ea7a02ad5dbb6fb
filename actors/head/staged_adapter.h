// An adapter in the head's memory: read and checked once, cut and packed for every rank, ready to be handed over or sent.
// Nothing else of its files is kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "actors/wire/wire.h"
#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"
#include "kernels/base/resident_memory.h"
#include "model/adapter/adapter.h"
#include "model/adapter/adapter_slice.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::actors {

class SpareStagingMemory;

struct StagedAdapter {
  std::string digest;
  int32_t max_rank = 0;
  // The slices of the ranks: in the layout of their slots (model/adapter/adapter_slice.h), those of DoRA as
  // model::encode_adapter makes them. They lie in memory that can be handed to the ranks of this host; where the system
  // has none, in this process's own.
  kernels::ResidentMemory region;
  struct Part {
    uint64_t offset = 0, bytes = 0;
  };
  std::vector<Part> parts;                   // [ranks], of the region; or
  std::vector<std::vector<uint8_t>> slices;  // [ranks]
  uint64_t bytes = 0;                        // of everything here

  size_t ranks() const { return parts.empty() ? slices.size() : parts.size(); }
  std::span<const uint8_t> slice(size_t rank) const {
    if (parts.empty()) return slices[rank];
    return region.bytes().subspan(parts[rank].offset, parts[rank].bytes);
  }
  const Descriptor* memory() const { return parts.empty() ? nullptr : &region.descriptor(); }  // null: there is none

  // DoRA: per pair in the order layer, projection; empty where the adapter is none.
  struct DoraPair {
    bool row_parallel = false;                  // the norms of the ranks are parts of a sum
    std::vector<std::vector<float>> magnitude;  // [ranks][outputs of the rank]; empty vectors: a pair without magnitude
    std::string module = {};                    // "layer 3, mlp.up_proj", for errors
  };
  std::vector<DoraPair> dora;
};

struct Staging {
  model::SliceLayout layout = model::SliceLayout::cpu_f32;  // that the ranks' slots take
  int threads = 1;                                          // that read and pack
  bool in_region = true;                                    // false: in the process's own memory
  SpareStagingMemory* spare = nullptr;                      // that may be taken; null: there is none
};

// Reads DIR, checks it against the base, and cuts and packs it with the base's plan. within: as model::AdapterOptions.
// Blocks on the disk. Errors: also a host without memory for it.
Result<std::shared_ptr<const StagedAdapter>> stage_adapter(const std::filesystem::path& dir,
                                                           const model::ShardPlan& plan, int32_t max_lora_rank,
                                                           const std::vector<std::string>& within = {},
                                                           const Staging& staging = {});

// DoRA: the factors of every rank from the squared norms of every rank, added in rank order where the layer is cut by
// its inputs. Refuses norms whose shapes are not the adapter's, or that are not positive.
Result<std::vector<DoraValues>> dora_factors(const StagedAdapter& adapter, std::span<const DoraValues> norms);

}  // namespace lorikeet::actors
