#include "actors/head/in_flight_plans.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

void InFlightPlans::sent(const engine::StepPlan& plan, TimePoint when, StepPace::Floor floor) {
  CHECK(plans_.empty() || plans_.rbegin()->first < plan.step);
  for (const engine::SequenceId id : plan.finished) wishes_.erase(id);
  for (const engine::SequenceStart& start : plan.starts) {
    const engine::SamplingParams& s = start.sampling;
    if (s.logprobs >= 0 || s.prompt_logprobs) {
      wishes_[start.id] = {s.logprobs, s.prompt_logprobs, s.prompt_top_logprobs, start.prompt_size};
    }
  }
  Plan& added = plans_[plan.step];
  added.epoch = plan.epoch;
  added.began = when;
  added.floor = floor;
  added.results.resize(static_cast<size_t>(ranks_));
  added.rows.reserve(plan.rows.size());
  for (const engine::StepRow& row : plan.rows) added.rows.push_back(expected(row));
}

InFlightPlans::Row InFlightPlans::expected(const engine::StepRow& row) const {
  Row expected;
  expected.id = row.id;
  expected.sample = row.sample;
  if (wishes_.empty()) return expected;
  const auto it = wishes_.find(row.id);
  if (it == wishes_.end()) return expected;
  const Wish& wish = it->second;
  if (row.sample) expected.logprobs = wish.logprobs;
  if (wish.prompt_logprobs && row.start + 1 < wish.prompt_size) {
    expected.prompt_logprobs_start = row.start + 1;
    expected.prompt_logprobs_count = std::min(row.start + row.count, wish.prompt_size - 1) - row.start;
    expected.prompt_top_logprobs = wish.prompt_top_logprobs;
  }
  return expected;
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
  if (auto ok = compare_with_plan(plan, result); !ok) return ok;
  for (int32_t other = 0; other < ranks_; ++other) {
    const auto& theirs = plan.results[static_cast<size_t>(other)];
    if (!theirs) continue;
    for (size_t row = 0; row < plan.rows.size(); ++row) {
      if (theirs->rows[row].token_id != result.rows[row].token_id) {
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

Result<void> InFlightPlans::compare_with_plan(const Plan& plan, const engine::StepResult& result) const {
  const int32_t rank = result.rank;
  const uint64_t step = result.step.value();
  if (result.epoch != plan.epoch) {
    return fail("rank {} answers step {} of epoch {} with one of epoch {}", rank, step, plan.epoch.value(),
                result.epoch.value());
  }
  if (result.rows.size() != plan.rows.size()) {
    return fail("rank {} answers step {} with {} rows of {}", rank, step, result.rows.size(), plan.rows.size());
  }
  auto of_prompt = result.prompts.begin();
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    auto ok = compare_row(plan.rows[i], result.rows[i], rank == 0);
    if (ok && rank == 0 && plan.rows[i].prompt_logprobs_count > 0) {
      const bool there = of_prompt != result.prompts.end() && std::cmp_equal(of_prompt->row, i);
      ok = compare_prompt(plan.rows[i], there ? *of_prompt++ : engine::PromptResult{});
    }
    if (!ok) return fail("rank {} answers row {} of step {} {}", rank, i, step, ok.error().message);
  }
  if (of_prompt != result.prompts.end()) {
    return fail("rank {} answers step {} with log-probabilities of the prompt for row {}, which was not asked for them",
                rank, step, of_prompt->row);
  }
  return {};
}

// `whole`: log-probabilities come from this rank, else the tokens alone.
Result<void> InFlightPlans::compare_row(const Row& row, const engine::RowResult& answer, bool whole) const {
  if (answer.id != row.id) return fail("with sequence {}, not {}", answer.id.value(), row.id.value());
  const bool forbidden = row.sample && answer.token_id == engine::kAllForbidden;
  const bool drawn = answer.token_id != engine::kNoToken && !forbidden;
  if (drawn && (!row.sample || !is_token(answer.token_id))) {
    return fail("with token {} for sequence {}, which {}", answer.token_id, row.id.value(),
                row.sample ? "is none" : "was to draw none");
  }
  const auto& logprobs = answer.logprobs;
  const bool wanted = whole && drawn && row.logprobs >= 0;
  if (logprobs.empty() == wanted || (wanted && logprobs.size() > static_cast<size_t>(row.logprobs) + 1)) {
    return fail("with {} log-probabilities for sequence {}", logprobs.size(), row.id.value());
  }
  const auto names = [](int32_t id) { return [id](const engine::TokenLogprob& l) { return l.token_id == id; }; };
  if (wanted && std::none_of(logprobs.begin(), logprobs.end(), names(answer.token_id))) {
    return fail("without the log-probability of token {} of sequence {}", answer.token_id, row.id.value());
  }
  for (const engine::TokenLogprob& logprob : logprobs) {
    if (!is_token(logprob.token_id)) return fail("with the log-probability of token {}", logprob.token_id);
  }
  return {};
}

Result<void> InFlightPlans::compare_prompt(const Row& row, const engine::PromptResult& answer) const {
  const auto asked = static_cast<size_t>(row.prompt_logprobs_count);
  if (answer.logprobs.size() != asked || answer.start != row.prompt_logprobs_start) {
    return fail("with {} log-probabilities from position {} of the prompt of sequence {}, not {} from {}",
                answer.logprobs.size(), answer.start, row.id.value(), asked, row.prompt_logprobs_start);
  }
  const size_t ranked = row.prompt_top_logprobs >= 0 ? asked : 0;
  if (answer.ranks.size() != ranked || answer.best.size() != ranked) {
    return fail("with {} ranks and {} lists of best tokens of the prompt of sequence {}, not {}", answer.ranks.size(),
                answer.best.size(), row.id.value(), ranked);
  }
  for (const auto& best : answer.best) {
    const bool tokens = std::all_of(best.begin(), best.end(), [this](const auto& l) { return is_token(l.token_id); });
    if (!tokens || best.size() > static_cast<size_t>(row.prompt_top_logprobs)) {
      return fail("with best tokens of the prompt of sequence {} that are none, or too many", row.id.value());
    }
  }
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

StepPace::Floor InFlightPlans::oldest_floor() const {
  return plans_.empty() ? StepPace::Floor() : plans_.begin()->second.floor;
}

std::vector<int32_t> InFlightPlans::unanswered() const {
  std::vector<int32_t> ranks;
  if (plans_.empty()) return ranks;
  for (int32_t rank = 0; rank < ranks_; ++rank) {
    if (!plans_.begin()->second.results[static_cast<size_t>(rank)]) ranks.push_back(rank);
  }
  return ranks;
}

void InFlightPlans::clear() {
  plans_.clear();
  wishes_.clear();
}

}  // namespace lorikeet::actors
