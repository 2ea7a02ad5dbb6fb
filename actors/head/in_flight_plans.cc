#include "actors/head/in_flight_plans.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

void InFlightPlans::sent(engine::StepId step, size_t rows, TimePoint when) {
  CHECK(plans_.empty() || plans_.rbegin()->first < step);
  Plan& plan = plans_[step];
  plan.rows = rows;
  plan.began = when;
  plan.results.resize(static_cast<size_t>(ranks_));
}

Result<void> InFlightPlans::add(engine::StepResult result) {
  const int32_t rank = result.rank;
  if (!result.error.empty()) return fail("rank {}: {}", rank, result.error);
  const auto it = plans_.find(result.step);
  if (rank < 0 || rank >= ranks_ || it == plans_.end()) {
    return fail("rank {} answers step {}, which it was not asked", rank, result.step.value());
  }
  Plan& plan = it->second;
  if (plan.results[static_cast<size_t>(rank)]) return fail("rank {} answers step {} twice", rank, result.step.value());
  if (result.rows.size() != plan.rows) {
    return fail("rank {} answers step {} with {} rows of {}", rank, result.step.value(), result.rows.size(), plan.rows);
  }
  for (int32_t other = 0; other < ranks_; ++other) {
    const auto& theirs = plan.results[static_cast<size_t>(other)];
    if (!theirs) continue;
    for (size_t row = 0; row < plan.rows; ++row) {
      if (theirs->rows[row].id != result.rows[row].id || theirs->rows[row].token_id != result.rows[row].token_id) {
        return fail("ranks {} and {} disagree in row {} of step {}: token {} of sequence {}, token {} of sequence {}",
                    other, rank, row, result.step.value(), theirs->rows[row].token_id, theirs->rows[row].id.value(),
                    result.rows[row].token_id, result.rows[row].id.value());
      }
    }
    break;  // the others agree with this one
  }
  plan.results[static_cast<size_t>(rank)] = std::move(result);
  ++plan.answers;
  return {};
}

std::optional<engine::StepResult> InFlightPlans::take_agreed(TimePoint now) {
  if (plans_.empty() || plans_.begin()->second.answers < ranks_) return std::nullopt;
  engine::StepResult result = *std::move(plans_.begin()->second.results[0]);
  plans_.erase(plans_.begin());
  if (!plans_.empty()) plans_.begin()->second.began = std::max(plans_.begin()->second.began, now);
  return result;
}

std::optional<InFlightPlans::TimePoint> InFlightPlans::oldest_began() const {
  if (plans_.empty()) return std::nullopt;
  return plans_.begin()->second.began;
}

std::vector<int32_t> InFlightPlans::unanswered() const {
  std::vector<int32_t> ranks;
  if (plans_.empty()) return ranks;
  for (int32_t rank = 0; rank < ranks_; ++rank) {
    if (!plans_.begin()->second.results[static_cast<size_t>(rank)]) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace lorikeet::actors
