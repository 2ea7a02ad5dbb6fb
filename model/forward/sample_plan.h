// From which tokens of a step logits are wanted and what for, cut into portions that fit the device's buffers. Nearly
// every step is one portion.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sampling/logprobs_cuda.h"
#include "kernels/sampling/sampling_cuda.h"
#include "model/forward/step_arrays.h"

namespace lorikeet::model {

// Of one portion, at most.
struct SampleLimits {
  int32_t rows = 0;    // of logits
  int64_t counts = 0;  // token counts; those of a single row always fit
  int64_t biases = 0;  // of constraints; those of a single row always fit
  int64_t best = 0;    // best tokens that are reported, at the stride of the longest list; those of a row always fit
  int32_t vocab = 0;   // of the whole model
};

// Whose log-probabilities one entry of SamplePortion::logprobs becomes.
struct LogprobUse {
  int32_t row = 0;            // of the batch
  int32_t target_index = -1;  // of the row's target_logprobs; -1: the drawn token and the best ones
  int32_t top = 0;
  bool ranked = false;  // with the target's rank
};

struct SamplePortion {
  std::vector<int32_t> tokens;          // [logits rows] of which the logits are made; empty: they exist already
  std::vector<int32_t> adapter_slots;   // [logits rows]
  std::vector<kernels::DrawRow> draws;  // rows without filters first
  int32_t unfiltered = 0;               // so many
  std::vector<kernels::LogprobRow> logprobs;
  std::vector<LogprobUse> uses;  // [logprobs]
  int32_t stride = 0;            // the longest list of best tokens
  bool ranked = false;           // the ranks of targets are wanted
  std::vector<kernels::DeviceTokenCount> counts;
  bool penalties = false;
  std::vector<kernels::ConstrainedRow> constrained;  // rows that have a constraint, and what they name
  std::vector<kernels::TokenBias> biases;
  std::vector<uint32_t> masks;
  struct Later {
    int32_t constrained = 0;  // entry of `constrained`, which has room for any mask and the row's biases
    int32_t row = 0;          // of the batch
  };
  std::vector<Later> later;  // those that constrain_later() gives

  // constraints: [rows of the batch]; what they hold of others is not looked at.
  void constrain_later(std::span<const kernels::TokenConstraint> constraints);
};

// `logits_exist`: row i of the logits is that of token i, for all tokens (a captured graph has made them).
std::vector<SamplePortion> plan_samples(const StepBatch& batch, bool logits_exist, const SampleLimits& limits);

// A portion's arrays in the step's block.
struct SampleArrays {
  int32_t* tokens;
  kernels::DrawRow* draws;
  kernels::LogprobRow* logprobs;
  unsigned char* lora_rows;  // of the logits rows

  SampleArrays(const SamplePortion& portion, uint64_t lora_bytes, Carver& carver);
  void write(const SamplePortion& portion) const;  // on the host; lora_rows are left out
};

// The same of its constraints, which have a block of their own: nearly all portions have none.
struct ConstraintArrays {
  kernels::ConstrainedRow* rows;
  kernels::TokenBias* biases;
  uint32_t* masks;

  ConstraintArrays(const SamplePortion& portion, Carver& carver);
  void write(const SamplePortion& portion) const;  // on the host
};

}  // namespace lorikeet::model
