// An adapter as the head holds it: read and checked once, cut for every rank, ready to be sent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "actors/wire/wire.h"
#include "kernels/base/error.h"
#include "model/adapter/adapter.h"
#include "model/checkpoint/shard_plan.h"

namespace lorikeet::actors {

struct StagedAdapter {
  std::string digest;
  int32_t max_rank = 0;
  std::vector<std::vector<uint8_t>> slices;  // [ranks], as model::encode_adapter makes them
  uint64_t bytes = 0;                        // of everything here

  // DoRA: per pair in the order layer, projection; empty where the adapter is none.
  struct DoraPair {
    bool row_parallel = false;                  // the norms of the ranks are parts of a sum
    std::vector<std::vector<float>> magnitude;  // [ranks][outputs of the rank]; empty vectors: a pair without magnitude
    std::string module = {};                    // "layer 3, mlp.up_proj", for errors
  };
  std::vector<DoraPair> dora;
};

// Reads DIR, checks it against the base and cuts it with the base's plan. within: as model::AdapterOptions. Blocks on the
// disk.
Result<std::shared_ptr<const StagedAdapter>> stage_adapter(const std::filesystem::path& dir,
                                                           const model::ShardPlan& plan, int32_t max_lora_rank,
                                                           const std::vector<std::string>& within = {});

// DoRA: the factors of every rank from the squared norms of every rank, added in rank order where the layer is cut by
// its inputs. Refuses norms of other shapes than the adapter's and such that are not positive.
Result<std::vector<DoraValues>> dora_factors(const StagedAdapter& adapter, std::span<const DoraValues> norms);

}  // namespace lorikeet::actors
