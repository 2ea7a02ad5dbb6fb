// What the scheduler tells every rank to do in one step, and what the ranks answer.
//
// A plan is a delta: a rank keeps per-sequence state (tokens, block table, sampling, penalty counts) that plans create,
// extend and drop. Plans are executed in order of their step. A rank applies a plan in this order:
//   finished -> starts -> blocks -> rows.
// A joining rank gets no deltas it missed: a new epoch starts from nothing and every live sequence is started again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/ids.h"
#include "engine/sampling_params.h"

namespace lorikeet::engine {

// Creates a sequence on the ranks. After a preemption or in a new epoch, token_ids holds the prompt and all tokens
// emitted so far; prompt_size still says where the prompt ends, since the penalties need to know.
struct SequenceStart {
  SequenceId id;
  SlotId slot = kBaseSlot;
  std::vector<int32_t> token_ids;
  int32_t prompt_size = 0;
  SamplingParams sampling;

  bool operator==(const SequenceStart&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("id", s.id);
    visit("slot", s.slot);
    visit("token_ids", s.token_ids);
    visit("prompt_size", s.prompt_size);
    visit("sampling", s.sampling);
  }
};

// Appends blocks to a sequence's block table. Table entry i holds positions [i * block_size, (i + 1) * block_size).
struct BlockAppend {
  SequenceId id;
  std::vector<BlockId> blocks;

  bool operator==(const BlockAppend&) const = default;
};

// Computes positions [start, start + count) of a sequence. The tokens at those positions are known to the rank: from
// the start, or drawn by it in an earlier step (the scheduler may not have seen that token yet).
struct StepRow {
  SequenceId id;
  int32_t start = 0;
  int32_t count = 0;
  bool sample = false;  // draw the token of position start + count and append it to the sequence

  bool operator==(const StepRow&) const = default;
};

struct StepPlan {
  Epoch epoch;
  StepId step;
  std::vector<SequenceId> finished;
  std::vector<SequenceStart> starts;
  std::vector<BlockAppend> blocks;
  std::vector<StepRow> rows;

  bool operator==(const StepPlan&) const = default;
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;  // natural logarithm, before penalties and temperature

  bool operator==(const TokenLogprob&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("token_id", s.token_id);
    visit("logprob", s.logprob);
  }
};

inline constexpr int32_t kNoToken = -1;       // the row's logits are not finite
inline constexpr int32_t kAllForbidden = -2;  // the request itself allows no token

struct RowResult {
  SequenceId id;
  // The drawn token; kNoToken where the row did not sample. Where it did and none could be drawn, the sequence ends, and
  // this says why: kNoToken or kAllForbidden. Rows of it that were planned before that was known are computed with any
  // token in its place.
  int32_t token_id = kNoToken;
  std::vector<TokenLogprob> logprobs;  // the k best, best first; the drawn token is appended where it is not among them

  bool operator==(const RowResult&) const = default;
};

// The log-probabilities of a prompt's own tokens, where the request asks for them. Kept apart from RowResult, of which a
// step has thousands and hardly any has this.
struct PromptResult {
  int32_t row = 0;              // of the step
  int32_t start = 0;            // logprobs[i] belongs to the prompt token at position start + i
  std::vector<float> logprobs;  // never empty
  // [logprobs] where asked for. ranks: the prompt token's rank by probability (1: none is more probable; equally probable ones
  // count before it). best: the k most probable tokens in its place, best first.
  std::vector<int32_t> ranks = {};
  std::vector<std::vector<TokenLogprob>> best = {};

  bool operator==(const PromptResult&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("row", s.row);
    visit("start", s.start);
    visit("logprobs", s.logprobs);
    visit("ranks", s.ranks);
    visit("best", s.best);
  }
};

// Measured by a rank on its device, for the status only: no decision depends on it.
struct StepTimes {
  uint64_t device_ns = 0;  // from the step's first work to its last
  uint64_t idle_ns = 0;    // of the device, from the end of the step before it to its begin
  bool decode = false;     // one token per row

  bool operator==(const StepTimes&) const = default;
};

// Rank 0 answers with the rows; the others with the same token ids alone, by which the scheduler sees that they agree.
struct StepResult {
  Epoch epoch;
  StepId step;
  int32_t rank = 0;
  std::vector<RowResult> rows;        // in the order of the plan's rows
  std::vector<PromptResult> prompts;  // of those rows that are asked for it, in their order
  std::string error;                  // not empty: the rank could not compute the step
  StepTimes times;                    // zeros where they are not measured
  bool peer_failed = false;           // with an error: it is a peer that does not answer

  bool operator==(const StepResult&) const = default;
};

}  // namespace lorikeet::engine
