// How long a step may take before its rank counts as hung. It follows from the step's floor (the bytes that it moves and
// the operations that it computes, model/forward/step_cost.h) and from how far above their floors recent steps were. So a
// step that hangs on a GPU is noticed within seconds, and a long prompt on a CPU does not count as a hang.
//
//   limit = allowance + kMargin x the step's floor x slowness
//   slowness: time / floor of the last steps of its kind, the slowest without the worst eighth, which may have been paused
//
// A kind: steps that are bound by bytes, or by operations. Until some of a kind have been seen, a slow machine's rates
// are assumed. Threads: one.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

#include "actors/wire/options.h"
#include "engine/step_plan.h"
#include "model/forward/step_cost.h"

namespace lorikeet::actors {

class StepPace {
 public:
  using Milliseconds = std::chrono::milliseconds;
  static constexpr double kMargin = 4;
  static constexpr size_t kSeen = 64;     // steps of a kind that are remembered
  static constexpr uint64_t kEnough = 8;  // so many must have been seen before they count
  static constexpr Milliseconds kLongest{3'600'000};
  static constexpr Milliseconds kForGrammars{30'000};

  // The least time that a step can take, in seconds, on a slow machine, and which kind it is.
  struct Floor {
    double seconds = 0;
    bool by_operations = false;
    bool may_compile = false;  // it starts sequences with grammars, for which the ranks may have to wait
  };

  // `allowance`: what any step may take beyond its work.
  StepPace(const model::StepCost& cost, bool on_gpu, Milliseconds allowance)
      : cost_(cost), on_gpu_(on_gpu), allowance_(allowance) {}

  Floor floor_of(const engine::StepPlan& plan) const;
  Milliseconds limit_of(const Floor& floor) const;
  void took(const Floor& floor, std::chrono::nanoseconds time);

 private:
  struct Kind {
    std::array<double, kSeen> floors{};  // that the last steps took
    uint64_t count = 0;
  };

  model::StepCost cost_;
  bool on_gpu_;
  Milliseconds allowance_;
  std::array<Kind, 2> kinds_;  // by bytes, by operations
};

// What the options allow: seconds on a GPU, whose steps take milliseconds; but longer than it takes to notice that a peer
// is silent (10 beats), since a rank that waits for one has not failed by itself.
inline std::chrono::milliseconds step_allowance(const ServerOptions& options) {
  const int32_t on_gpu_ms = std::max(5'000, 14 * options.heartbeat_ms);
  const bool on_gpu = options.device == "cuda";
  return std::chrono::milliseconds(on_gpu ? std::min(options.rank_timeout_ms, on_gpu_ms) : options.rank_timeout_ms);
}

// The cost of a rank's steps as its device stores what they read: the ranks' parts are alike, but for remainders.
inline model::StepCost step_cost_of(const ServerOptions& options, const model::ShardPlan& plan) {
  constexpr model::ElementBytes kOnCpu{4, 4, 4};
  return model::step_cost(plan, 0, options.device == "cuda" ? model::ElementBytes() : kOnCpu);
}

}  // namespace lorikeet::actors
