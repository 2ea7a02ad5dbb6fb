// Sampling on the device. Definitions and order: vLLM's sampler (penalties, temperature, min_p, top_k, top_p, draw);
// the draw is argmax of logit / temperature + noise, with the noise of kernels/sampling/philox.h. Ties go to the lower
// token id. Logits that are not numbers never win; a row of which none is a number gives -1 in place of a token.
//
// The vocabulary is cut over the ranks. Rows without filters need their own part alone: every rank finds its best
// token, and the ranks compare. Rows with top_k, top_p or min_p are cut by what all ranks have: where ranks reach each
// other's memory, each has its own part and they tell each other, within the kernels, their best tokens, how many
// tokens or how much probability lies how far from the best one, and the few tokens about the cut; elsewhere they
// gather the logits. Either way all ranks draw alike, and the same token.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"

namespace lorikeet::kernels {

struct PeerGroup;  // kernels/peer/peer_sum_cuda.h

// One row of logits from which a token is drawn, in device memory.
struct DrawRow {
  uint64_t seed = 0;
  int32_t position = 0;  // of the token that is drawn
  int32_t logits_row = 0;
  int32_t draw_row = -1;  // where the token goes in `drawn`; -1: nothing is drawn
  float temperature = 1;  // below kGreedyTemperature: the best token, without noise or filters
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  int32_t top_k = 0;      // 0: off
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int32_t counts_begin = 0, counts_end = 0;  // the row's part of the counts, ordered by token id
  int32_t pending = -1;  // the entry of `resolved` that was generated and is not in the counts; -1: none

  constexpr bool greedy() const { return temperature < 1e-5F; }
  constexpr bool filtered() const { return !greedy() && (top_k > 0 || top_p < 1 || min_p > 0); }
  constexpr bool penalised() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

// One distinct token of a row's sequence.
struct DeviceTokenCount {
  int32_t token_id = 0;
  int32_t in_output = 0;  // how often it was generated
  int32_t in_prompt = 0;  // 0 or 1
};

// A rank's best token of a row; 0x7fffffff where none of its logits is a number.
struct Candidate {
  float value = 0;
  int32_t token_id = 0;
};

// A rank's part of the logits, in device memory.
struct LogitsShard {
  float* logits = nullptr;  // [rows, stride], column i is token vocab_begin + i
  int64_t stride = 0;       // elements
  int32_t vocab_begin = 0;
  int32_t vocab_size = 0;  // columns in use
};

// Changes the logits of penalised rows in place. saved [counts + rows] takes the values from before: entry i of count
// i, and entry num_counts + r of row r's pending token where that is not among its counts.
struct PenaltyArgs {
  LogitsShard shard;
  const DrawRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  const DeviceTokenCount* counts = nullptr;
  int32_t num_counts = 0;
  const int32_t* resolved = nullptr;  // the step's token ids
  float* saved = nullptr;             // out
};
void apply_penalties_cuda(const PenaltyArgs& args, const Stream& stream);

// Finds the best token of each row in this rank's part; filters are ignored.
struct UnfilteredDrawArgs {
  LogitsShard shard;
  const DrawRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  Candidate* best = nullptr;   // out [num_rows]
  int32_t* drawn = nullptr;    // out, null where ranks must compare first: the tokens at DrawRow::draw_row
  void* workspace = nullptr;   // unfiltered_draw_workspace(...) bytes, zeroed when it is made
  int32_t workspace_rows = 0;  // at least num_rows, the same in all calls with this workspace
};
uint64_t unfiltered_draw_workspace(int32_t workspace_rows, int32_t vocab_size);
void draw_unfiltered_cuda(const UnfilteredDrawArgs& args, const Stream& stream);

// best [ranks, num_rows], gathered -> drawn.
struct CompareDrawsArgs {
  const Candidate* best = nullptr;
  int32_t ranks = 0;
  const DrawRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  int32_t* drawn = nullptr;  // out: the tokens at DrawRow::draw_row
};
void compare_draws_cuda(const CompareDrawsArgs& args, const Stream& stream);

// Draws from rows of which all logits are here, or all ranks have a part (`peers`).
inline constexpr int32_t kMaxVocabPieces = 16;
struct FilteredDrawArgs {
  const float* logits = nullptr;                   // [pieces, rows, stride]: what the ranks gathered
  int64_t piece_stride = 0;                        // elements between pieces
  int64_t stride = 0;                              // elements between rows
  int32_t first_logits_row = 0;                    // DrawRow::logits_row of the first row in `logits`
  int32_t pieces = 1;                              // at most kMaxVocabPieces
  int32_t vocab_begins[kMaxVocabPieces + 1] = {};  // piece p has tokens [vocab_begins[p], vocab_begins[p + 1])
  const DrawRow* rows = nullptr;                   // [num_rows]
  int32_t num_rows = 0;
  int32_t* drawn = nullptr;          // out: the tokens at DrawRow::draw_row
  void* workspace = nullptr;         // vocab_cut_workspace(size of the vocabulary) bytes, zeroed when it is made
  const PeerGroup* peers = nullptr;  // then `logits` is this rank's part, one piece, and all ranks draw the same rows
  int32_t tokens_of_peers = 0;       // with peers: the size of the whole vocabulary
};
uint64_t vocab_cut_workspace(int32_t vocab_size);
void draw_filtered_cuda(const FilteredDrawArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
