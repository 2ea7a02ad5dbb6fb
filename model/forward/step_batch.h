// The rows of a step in the order in which the device takes their tokens.
//
// Rows of one token come first, and with them those that are to be computed as if every position were one: they are one
// launch of the decode attention, and where there are no others, a captured graph. Among rows of one token, those whose
// draw is filtered come last, so that their logits lie behind each other and can be gathered over the ranks.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "model/forward/rank_model.h"

namespace lorikeet::model {

struct StepBatch {
  std::span<const BatchRow> rows;     // as the caller gave them
  std::vector<int32_t> order;         // [rows] indices of rows
  std::vector<int32_t> first_tokens;  // [rows] the first token of row i (not of order[i])
  int32_t decoding = 0;               // order[0 .. decoding): rows whose positions are decode rows
  int32_t decode_rows = 0;            // all of their positions
  int32_t tokens = 0;
  int32_t query_tiles = 0;  // of the prefill attention
  bool adapters = false;    // any row has one

  // Rows of one token always fit into most_decode_rows; those that ask for BatchRow::decode do so in their order.
  explicit StepBatch(std::span<const BatchRow> rows, int32_t most_decode_rows = std::numeric_limits<int32_t>::max());

  int32_t prefill_rows() const { return static_cast<int32_t>(order.size()) - decoding; }
  bool decode_only() const { return !order.empty() && prefill_rows() == 0; }
};

// Whether a row's draw needs all logits.
bool is_filtered(const BatchRow& row);

}  // namespace lorikeet::model
