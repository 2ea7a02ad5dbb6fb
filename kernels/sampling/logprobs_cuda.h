// What log-probabilities are made of, on the device: per row of logits the normaliser, the k best tokens and the logit
// of one token, each for this rank's part of the vocabulary. The host joins the ranks' parts.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/sampling/sampling_cuda.h"
#include "kernels/sampling/token_constraint_cuda.h"

namespace lorikeet::kernels {

// A row whose log-probabilities are wanted, in device memory.
struct LogprobRow {
  int32_t logits_row = 0;
  int32_t top = 0;          // how many of the best tokens
  int32_t token = 0;        // the token whose logit is wanted, or ~row: the token at drawn[row]
  int32_t draw_index = -1;  // the row's place among the rows that apply_penalties_cuda changed; -1: it was not changed
  int32_t constraint = -1;  // likewise of constrain_logits_cuda
};

// log(sum of exp(logit)) over a part of the vocabulary is largest + log(sum).
struct LogitStatistics {
  float largest = 0;
  float sum = 0;    // of exp(logit - largest)
  float logit = 0;  // of LogprobRow::token before constraint and penalties; -infinity where another rank has it
};

struct LogprobArgs {
  LogitsShard shard;
  const LogprobRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  LogitStatistics* statistics = nullptr;  // out [num_rows]
  void* workspace = nullptr;              // logit_statistics_workspace(...) bytes, zeroed when it is made
  int32_t workspace_rows = 0;             // at least num_rows, the same in all calls with this workspace
};
uint64_t logit_statistics_workspace(int32_t workspace_rows, int32_t vocab_size);

// Fills `largest` and `sum`, before penalties change the logits. Blocks of 4,096 tokens are joined in their order, so
// the result depends on the row alone.
void logit_statistics_cuda(const LogprobArgs& args, const Stream& stream);

// The rows' best tokens of this part, in any order: entry i * stride + j, j < min(top, vocab_size). Before penalties.
struct TopTokensArgs {
  LogitsShard shard;
  const LogprobRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  Candidate* best = nullptr;  // out [num_rows, stride]
  int32_t stride = 0;         // at least every row's `top`
  void* workspace = nullptr;  // as FilteredDrawArgs::workspace, of this part
  // LogprobArgs::workspace and ::workspace_rows of logit_statistics_cuda, called before with the same rows: where it has
  // seen enough, two looks at the logits are spared. Null: it was not called.
  void* statistics = nullptr;
  int32_t statistics_rows = 0;
};
void top_tokens_cuda(const TopTokensArgs& args, const Stream& stream);

// Fills `logit`, after the draws. `draw_rows` to `saved` are those of PenaltyArgs, what follows is of ConstrainArgs.
struct TokenLogitArgs {
  LogitsShard shard;
  const LogprobRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  const int32_t* drawn = nullptr;
  LogitStatistics* statistics = nullptr;  // out [num_rows]
  const DrawRow* draw_rows = nullptr;
  const DeviceTokenCount* counts = nullptr;
  int32_t num_counts = 0;
  const int32_t* resolved = nullptr;
  const float* saved = nullptr;
  const ConstrainedRow* constrained = nullptr;
  const TokenBias* biases = nullptr;
  const float* saved_of_biases = nullptr;
};
void token_logits_cuda(const TokenLogitArgs& args, const Stream& stream);

// How many tokens of this part are at least as good as each row's token, whose logit is the largest of the ranks'
// statistics. Of rows that no penalty or constraint has changed.
struct CountAtLeastArgs {
  LogitsShard shard;
  const LogprobRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  const LogitStatistics* statistics = nullptr;  // [ranks, num_rows]
  int32_t ranks = 1;
  int32_t* counts = nullptr;  // out [num_rows]
};
void count_at_least_cuda(const CountAtLeastArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
