// How many KV blocks a rank may hold.
#pragma once

#include <cstdint>

#include "actors/wire/options.h"
#include "actors/wire/wire.h"
#include "kernels/base/error.h"
#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::actors {

// The positions that a request may take: --max-model-len, else the checkpoint's own limit. Refuses more than the latter.
Result<int32_t> context_length(const ServerOptions& options, const model::ModelConfig& config);

// The blocks for `budget` bytes of which each takes `block_bytes`, but no more than max_num_seqs sequences of the full
// context need. Refuses a budget that holds none.
Result<int32_t> blocks_within(uint64_t budget, uint64_t block_bytes, const ServerOptions& options,
                              int32_t max_model_len);

// Bytes of one block of a rank's CPU cache: keys and values of all layers in float32.
uint64_t cpu_block_bytes(const model::ShardPlan& plan, int rank, int32_t block_size);

}  // namespace lorikeet::actors
