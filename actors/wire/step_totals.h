// What the steps of a server have had to compute and have taken on rank 0's device, summed up since the group's start.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "actors/wire/time_histogram.h"
#include "engine/step_plan.h"

namespace lorikeet::actors {

// How many tokens steps had, in the buckets that vLLM counts them in.
class StepTokens {
 public:
  static constexpr std::array<uint64_t, 13> kBounds = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

  void add(uint64_t tokens) {
    ++counts_[static_cast<size_t>(std::lower_bound(kBounds.begin(), kBounds.end(), tokens) - kBounds.begin())];
  }
  StepTokens& operator+=(const StepTokens& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    return *this;
  }
  StepTokens& operator-=(const StepTokens& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] -= other.counts_[i];
    return *this;
  }

  // Of the steps up to each bound and past those before it; the last one is of those past all bounds.
  using Plain = std::vector<uint64_t>;
  Plain plain() const { return {counts_.begin(), counts_.end()}; }
  static StepTokens from_plain(const Plain& counts) {
    StepTokens tokens;
    std::copy_n(counts.begin(), std::min(counts.size(), tokens.counts_.size()), tokens.counts_.begin());
    return tokens;
  }

  bool operator==(const StepTokens&) const = default;

 private:
  std::array<uint64_t, kBounds.size() + 1> counts_{};
};

struct StepTotals {
  uint64_t decode_steps = 0;    // of one token per sequence
  uint64_t decode_ns = 0;       // on the device, from a step's first work to its last
  uint64_t decode_idle_ns = 0;  // of the device, between the end of the step before a decode step and its begin
  uint64_t prefill_steps = 0;   // the others: a prompt's tokens, and whoever decodes beside them
  uint64_t prefill_ns = 0;
  TimeHistogram decode_idle;  // what decode_idle_ns is the sum of
  uint64_t tokens = 0;        // that steps were planned for: of prompts and generated ones
  StepTokens step_tokens;     // what it is the sum of

  void count_tokens(const engine::StepPlan& plan) {
    uint64_t count = 0;
    for (const engine::StepRow& row : plan.rows) count += static_cast<uint64_t>(row.count);
    tokens += count;
    step_tokens.add(count);
  }

  void add(const engine::StepTimes& times) {
    if (times.decode) {
      ++decode_steps;
      decode_ns += times.device_ns;
      decode_idle_ns += times.idle_ns;
      decode_idle.add(times.idle_ns);
    } else {
      ++prefill_steps;
      prefill_ns += times.device_ns;
    }
  }

  // Of a stretch of time: the totals at its end minus those at its begin, or those of several stretches together.
  StepTotals& operator+=(const StepTotals& other) {
    return combine(other, [](auto& mine, const auto& theirs) { mine += theirs; });
  }
  StepTotals& operator-=(const StepTotals& other) {
    return combine(other, [](auto& mine, const auto& theirs) { mine -= theirs; });
  }

  bool operator==(const StepTotals&) const = default;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("decode_steps", s.decode_steps);
    visit("decode_ns", s.decode_ns);
    visit("decode_idle_ns", s.decode_idle_ns);
    visit("prefill_steps", s.prefill_steps);
    visit("prefill_ns", s.prefill_ns);
    visit("decode_idle", s.decode_idle);
    visit("tokens", s.tokens);
    visit("step_tokens", s.step_tokens);
  }

 private:
  template <class Operation>
  StepTotals& combine(const StepTotals& o, Operation f) {
    f(decode_steps, o.decode_steps);
    f(decode_ns, o.decode_ns);
    f(decode_idle_ns, o.decode_idle_ns);
    f(prefill_steps, o.prefill_steps);
    f(prefill_ns, o.prefill_ns);
    f(decode_idle, o.decode_idle);
    f(tokens, o.tokens);
    f(step_tokens, o.step_tokens);
    return *this;
  }
};

}  // namespace lorikeet::actors
