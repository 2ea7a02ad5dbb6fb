// kernels/sampling/token_constraint.h on the device, for those rows of a step that have a constraint.
#pragma once

#include <cstdint>

#include "kernels/base/device.h"
#include "kernels/sampling/sampling_cuda.h"
#include "kernels/sampling/token_constraint.h"

namespace lorikeet::kernels {

// A row with a constraint, in device memory.
struct ConstrainedRow {
  int32_t logits_row = 0;
  int32_t mask_begin = 0, mask_words = 0;    // its bits in the masks; no words: all tokens are allowed
  int32_t biases_begin = 0, biases_end = 0;  // its part of the biases, ordered by token id
  int32_t last_token = 0;                    // the entry of `resolved` that is the token before the draw
};

// Changes the rows' logits in place, before the penalties.
struct ConstrainArgs {
  LogitsShard shard;
  const ConstrainedRow* rows = nullptr;  // [num_rows]
  int32_t num_rows = 0;
  const uint32_t* masks = nullptr;
  const TokenBias* biases = nullptr;
  const int32_t* resolved = nullptr;  // the step's token ids
  float* saved = nullptr;             // out [biases]: at the first bias of a token, its logit from before
};
void constrain_logits_cuda(const ConstrainArgs& args, const Stream& stream);

}  // namespace lorikeet::kernels
