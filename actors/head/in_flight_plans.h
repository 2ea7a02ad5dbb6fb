// The plans that have been sent and not yet answered by every rank: the one place where work in flight is kept, and
// where what a rank says is compared with what it was asked and with what its peers say.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "actors/wire/step_pace.h"
#include "engine/step_plan.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

class InFlightPlans {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  InFlightPlans(int32_t ranks, int32_t vocab_size) : ranks_(ranks), vocab_size_(vocab_size) {}

  // CHECKs that steps come in order.
  void sent(const engine::StepPlan& plan, TimePoint when, StepPace::Floor floor = {});

  // Takes one rank's result, which may say anything: `result.rank` is the rank that it came from. Errors: the rank could
  // not compute the step, drew other tokens than its peers, or answers what it was not asked, with ids, tokens or
  // log-probabilities that do not belong there. The group cannot be used after one.
  Result<void> add(engine::StepResult result);

  // Rank 0's result of the oldest plan once all ranks have given the same tokens.
  std::optional<engine::StepResult> take_agreed(TimePoint now);

  size_t size() const { return plans_.size(); }
  // Since when the ranks have had the oldest plan to work on: it had been sent, and the one before it answered.
  std::optional<TimePoint> oldest_began() const;
  StepPace::Floor oldest_floor() const;  // of that one; nothing where there is none
  // The ranks that have not answered the oldest plan.
  std::vector<int32_t> unanswered() const;
  void clear();  // the ranks are gone

 private:
  // What a row's answer must be like.
  struct Row {
    engine::SequenceId id;
    bool sample = false;
    int32_t logprobs = -1;              // as SamplingParams::logprobs
    int32_t prompt_logprobs_start = 0;  // position
    int32_t prompt_logprobs_count = 0;
    int32_t prompt_top_logprobs =
        -1;  // wanted beside them: the tokens' ranks and so many of the best tokens; -1: neither
  };
  struct Plan {
    engine::Epoch epoch;
    std::vector<Row> rows;
    TimePoint began;
    StepPace::Floor floor;
    std::vector<std::optional<engine::StepResult>> results;  // [ranks]
    int32_t answers = 0;
  };
  // A sequence on the ranks that wants more than its tokens.
  struct Wish {
    int32_t logprobs = -1;
    bool prompt_logprobs = false;
    int32_t prompt_top_logprobs = -1;
    int32_t prompt_size = 0;
  };

  Row expected(const engine::StepRow& row) const;
  Result<void> compare_with_plan(const Plan& plan, const engine::StepResult& result) const;
  Result<void> compare_row(const Row& row, const engine::RowResult& answer, bool whole) const;
  Result<void> compare_prompt(const Row& row, const engine::PromptResult& answer) const;
  bool is_token(int32_t id) const { return id >= 0 && id < vocab_size_; }

  int32_t ranks_, vocab_size_;
  std::map<engine::StepId, Plan> plans_;
  std::unordered_map<engine::SequenceId, Wish> wishes_;
};

}  // namespace lorikeet::actors
