// The plans that have been sent and not yet answered by every rank: the one place where work in flight is kept.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "engine/step_plan.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

class InFlightPlans {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit InFlightPlans(int32_t ranks) : ranks_(ranks) {}

  void sent(engine::StepId step, size_t rows, TimePoint when);

  // Takes one rank's result. Errors: the rank could not compute the step, drew other tokens than its peers, or answers
  // what it was not asked. The group cannot be used after one.
  Result<void> add(engine::StepResult result);

  // Rank 0's result of the oldest plan once all ranks have given the same tokens.
  std::optional<engine::StepResult> take_agreed(TimePoint now);

  size_t size() const { return plans_.size(); }
  // Since when the ranks can have worked on the oldest plan: it was sent, and the one before it was answered.
  std::optional<TimePoint> oldest_began() const;
  // The ranks that have not answered the oldest plan.
  std::vector<int32_t> unanswered() const;
  void clear() { plans_.clear(); }

 private:
  struct Plan {
    size_t rows = 0;
    TimePoint began;
    std::vector<std::optional<engine::StepResult>> results;  // [ranks]
    int32_t answers = 0;
  };

  int32_t ranks_;
  std::map<engine::StepId, Plan> plans_;
};

}  // namespace lorikeet::actors
