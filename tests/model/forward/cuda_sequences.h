// Sequences that tests let a model continue, alone or together: the CUDA model mostly.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "model/forward/rank_model.h"

namespace lorikeet::tests {

struct TestSequence {
  std::vector<int32_t> ids;  // kPendingToken where a step in flight draws it
  std::vector<int32_t> blocks;
  int32_t prompt_size = 0;
  int32_t computed = 0;  // positions in the KV cache
  int32_t slot = -1;
  int32_t pending_row = -1;
  model::RowSampling sampling;
  std::vector<model::TokenCount> counts;
  kernels::TokenConstraint constraint;
  bool constrained_later = false;
  bool decode = false;  // BatchRow::decode
  std::vector<model::RowOutput> outputs;

  // `first_block`: it has 16 blocks from there on.
  TestSequence(std::vector<int32_t> prompt, int32_t first_block, int32_t slot_of_adapter = -1)
      : ids(std::move(prompt)), blocks(16), prompt_size(static_cast<int32_t>(ids.size())), slot(slot_of_adapter) {
    std::iota(blocks.begin(), blocks.end(), first_block);
    sampling.temperature = 0;
    sampling.logprobs = 5;
  }
};

// Begins one step in which every sequence computes all that it has and draws its next token.
inline void begin(model::RankModel& model, std::span<TestSequence* const> sequences) {
  std::vector<model::BatchRow> rows;
  for (TestSequence* s : sequences) {
    model::BatchRow row;
    row.token_ids = std::span<const int32_t>(s->ids).subspan(static_cast<size_t>(s->computed));
    row.pending_row = s->pending_row;
    row.prompt_size = s->prompt_size;
    row.start = s->computed;
    row.block_table = s->blocks;
    row.slot = s->slot;
    row.sample = true;
    row.decode = s->decode;
    row.sampling = s->sampling;
    row.counts = s->counts;
    row.constraint = s->constraint;
    row.constrained_later = s->constrained_later;
    rows.push_back(row);
  }
  model.begin_step(rows);
  for (size_t i = 0; i < sequences.size(); ++i) {
    TestSequence* s = sequences[i];
    s->computed = static_cast<int32_t>(s->ids.size());
    s->ids.push_back(model::kPendingToken);
    s->pending_row = static_cast<int32_t>(i);
  }
}

// Finishes the oldest step, which had these sequences. `computed` may have gone on meanwhile.
inline void finish(model::RankModel& model, std::span<TestSequence* const> sequences) {
  const std::vector<model::RowOutput> outputs = model.finish_step();
  ASSERT_EQ(outputs.size(), sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    TestSequence* s = sequences[i];
    const size_t place = static_cast<size_t>(s->prompt_size) + s->outputs.size();
    s->ids.at(place) = outputs[i].token_id;
    s->outputs.push_back(outputs[i]);
  }
}

inline void step(model::RankModel& model, std::span<TestSequence* const> sequences) {
  begin(model, sequences);
  finish(model, sequences);
}

inline void steps_alone(model::RankModel& model, TestSequence& sequence, int count) {
  TestSequence* one[] = {&sequence};
  for (int i = 0; i < count; ++i) step(model, one);
}

inline bool same_bits(const model::RowOutput& a, const model::RowOutput& b) {
  if (a.token_id != b.token_id || a.logprobs.size() != b.logprobs.size()) return false;
  for (size_t i = 0; i < a.logprobs.size(); ++i) {
    if (a.logprobs[i].token_id != b.logprobs[i].token_id || a.logprobs[i].logprob != b.logprobs[i].logprob)
      return false;
  }
  return true;
}

// How many of the outputs differ in any bit.
inline int differing(const TestSequence& a, const TestSequence& b) {
  int count = 0;
  for (size_t i = 0; i < std::max(a.outputs.size(), b.outputs.size()); ++i) {
    count += i >= a.outputs.size() || i >= b.outputs.size() || !same_bits(a.outputs[i], b.outputs[i]) ? 1 : 0;
  }
  return count;
}

}  // namespace lorikeet::tests
