// What the steps of a server have taken on rank 0's device, summed up since the group's start.
#pragma once

#include <cstdint>

#include "actors/wire/time_histogram.h"
#include "engine/step_plan.h"

namespace lorikeet::actors {

struct StepTotals {
  uint64_t decode_steps = 0;    // of one token per sequence
  uint64_t decode_ns = 0;       // on the device, from a step's first work to its last
  uint64_t decode_idle_ns = 0;  // of the device, between the end of the step before a decode step and its begin
  uint64_t prefill_steps = 0;   // the others: a prompt's tokens, and whoever decodes beside them
  uint64_t prefill_ns = 0;
  TimeHistogram decode_idle;  // what decode_idle_ns is the sum of

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
    return *this;
  }
};

}  // namespace lorikeet::actors
