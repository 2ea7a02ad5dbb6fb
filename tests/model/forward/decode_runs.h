// Whether a model computes generated tokens again, several positions of a sequence at a time, to the bits that they had
// one by one.
#pragma once

#include <array>
#include <vector>

#include "tests/model/forward/cuda_sequences.h"

namespace lorikeet::tests {

// Four sequences, one of the base model and three of the adapters in slots 0 to 2, draw tokens. Then each has its prompt
// computed again in other blocks, up to 8 of its tokens behind it in one row of a step of all four, and goes on from
// there. Returns how many outputs differ in any bit. `on_runs` is called with the step's rows begun and not finished.
template <class OnRuns>
int differing_after_runs(model::RankModel& model, const std::array<size_t, 4>& runs, const OnRuns& on_runs) {
  constexpr size_t kTokens = 12;
  const std::array<int32_t, 4> prompts = {9, 1, 30, 15};
  std::vector<TestSequence> expected;
  for (int32_t i = 0; i < 4; ++i) {
    std::vector<int32_t> prompt;
    for (int32_t t = 0; t < prompts[static_cast<size_t>(i)]; ++t) prompt.push_back((37 * t + 101 * i + 11) % 2000);
    expected.emplace_back(std::move(prompt), 16 * i, i - 1);
  }
  expected[1].sampling.temperature = 0.8F;
  expected[1].sampling.seed = 5;
  expected[2].sampling = expected[1].sampling;
  expected[2].sampling.top_k = 30;
  expected[3].sampling = expected[2].sampling;
  for (TestSequence& sequence : expected) steps_alone(model, sequence, kTokens);

  std::vector<TestSequence> again;
  std::vector<TestSequence*> batch;
  for (size_t i = 0; i < 4; ++i) {
    const TestSequence& before = expected[i];
    const auto prompt_end = before.ids.begin() + before.prompt_size;
    again.emplace_back(std::vector<int32_t>(before.ids.begin(), prompt_end), 64 + 16 * static_cast<int32_t>(i),
                       before.slot);
    again.back().sampling = before.sampling;
    steps_alone(model, again.back(), 1);
    again.back().ids.assign(before.ids.begin(), prompt_end + static_cast<std::ptrdiff_t>(runs[i]));
    again.back().outputs.assign(before.outputs.begin(), before.outputs.begin() + static_cast<std::ptrdiff_t>(runs[i]));
    again.back().decode = true;
  }
  for (TestSequence& sequence : again) batch.push_back(&sequence);
  begin(model, batch);
  on_runs();
  finish(model, batch);
  int different = 0;
  for (size_t i = 0; i < 4; ++i) {
    steps_alone(model, again[i], static_cast<int>(kTokens - again[i].outputs.size()));
    different += differing(again[i], expected[i]);
  }
  return different;
}

inline constexpr std::array<std::array<size_t, 4>, 3> kDecodeRuns = {{{8, 8, 8, 8}, {1, 5, 2, 7}, {2, 1, 2, 3}}};

}  // namespace lorikeet::tests
