// What a step must at least move and compute on one rank, from the sizes alone: the floor that measured steps stand
// beside.
#pragma once

#include <cstdint>

#include "model/checkpoint/shard_plan.h"

namespace lorikeet::model {

struct ElementBytes {
  int32_t dense = 2;    // of an unquantised weight
  int32_t kv = 2;       // of the KV cache
  int32_t adapter = 2;  // of an adapter's weight
};

// All of one rank.
struct StepCost {
  // Read once per step whatever its tokens: int4 values with their groups' scales (16 bits) and, of asymmetric weights,
  // zeros (4 bits); unquantised weights; norms.
  uint64_t layer_bytes = 0;
  uint64_t lm_head_bytes = 0;
  uint64_t kv_bytes_per_position = 0;   // read for every position of a sequence's context, and written once
  uint64_t adapter_bytes_per_rank = 0;  // of an adapter of rank 1 on all projections
  double layer_flops_per_token = 0;
  double lm_head_flops_per_row = 0;
  double attention_flops_per_pair = 0;  // of a query and a key position

  // One decode step of `rows` sequences with `context` positions each, in which `adapters` adapters of rank
  // `adapter_rank` occur.
  double decode_bytes(double rows, double context, int32_t adapters = 0, int32_t adapter_rank = 0) const;
  double decode_flops(double rows, double context) const;

  // `prompts` prompts of `tokens` tokens each, of which the last one's logits are wanted, computed in steps of up to
  // `chunk` tokens. What later chunks read of the KV cache is left out: little beside the weights.
  double prefill_bytes(int64_t prompts, int64_t tokens, int64_t chunk) const;
  double prefill_flops(int64_t prompts, int64_t tokens) const;
};

StepCost step_cost(const ShardPlan& plan, int rank, const ElementBytes& bytes);

}  // namespace lorikeet::model
