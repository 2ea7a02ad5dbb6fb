// From logits to a step's outputs, over a vocabulary that is cut over the ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/collective/collective.h"
#include "kernels/cpu/thread_pool.h"
#include "model/checkpoint/shard_plan.h"
#include "model/forward/rank_model.h"

namespace lorikeet::model {

// One row of logits that a step needs.
struct LogitsUse {
  size_t row = 0;             // of the batch
  int32_t token = 0;          // of the batch
  int32_t target = -1;        // the log-probability of this token is wanted ...
  int32_t target_index = -1;  // ... as entry target_index of the row's target_logprobs
  bool sample = false;        // the row's token is drawn from it
};

// Every rank calls this with the same arguments but for `logits` [uses, vocab shard], which is its own part; all get
// the same outputs. pending[row] is the token that a row's sequence has generated and that its counts do not hold; -1:
// none.
void finish_rows_cpu(std::span<const BatchRow> rows, std::span<const LogitsUse> uses,
                     const std::vector<int32_t>& pending, std::vector<float>& logits, const ShardPlan& plan,
                     comm::Collective& group, kernels::ThreadPool& pool, std::vector<RowOutput>& outputs);

}  // namespace lorikeet::model
