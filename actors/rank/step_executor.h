// Turns plans into the batches that a rank's model computes. Plans are deltas, so it keeps each sequence's tokens, block
// table, sampling, penalty counts and constraints on its draws. It decides nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "actors/rank/draw_rules.h"
#include "actors/rank/rank_answer.h"
#include "engine/step_plan.h"
#include "kernels/base/error.h"
#include "model/forward/rank_model.h"

namespace lorikeet::actors {

// Threads: one. Errors: a plan that contradicts what came before is refused with a sentence and the group cannot be
// used any more; comm::CollectiveError passes through from the model.
class StepExecutor {
 public:
  // grammars: may be empty; sequences that need one may then draw no token.
  StepExecutor(model::RankModel& model, int32_t rank, int32_t block_size, int32_t num_blocks, int32_t num_slots,
               FindGrammar grammars = nullptr, int32_t vocab_size = 0)
      : model_(model),
        rank_(rank),
        block_size_(block_size),
        num_blocks_(num_blocks),
        num_slots_(num_slots),
        grammars_(std::move(grammars)),
        vocab_size_(vocab_size) {}

  // Whether the steps in flight must be finished before the plan can begin: the constraint of one of its draws depends on a
  // token that a step in flight will draw, and the model needs constraints when a step begins.
  bool must_wait(const engine::StepPlan& plan);

  // Applies the plan and starts its step; only if in_flight() < model::RankModel::kMaxStepsInFlight.
  Result<void> begin(const engine::StepPlan& plan);

  // Whether draws of the step begun last wait for constrain(), which may be called when no other step is in flight: the
  // steps before it are finished first, while the device computes it.
  bool awaits_constraints() const { return !steps_.empty() && steps_.back().awaits_constraints; }
  void constrain();

  size_t in_flight() const { return steps_.size(); }
  bool ready() { return model_.step_ready(); }  // only if in_flight() > 0

  // Waits for the oldest step. Rank 0 reports everything, the others only the drawn tokens. A row without a token is
  // reported as such; its sequence continues with model::kTokenInstead until a plan drops it.
  Result<engine::StepResult> finish();

  size_t sequences() const { return sequences_.size(); }

 private:
  struct Sequence {
    uint64_t incarnation = 0;  // an id may be started again while a step of its earlier start is in flight
    int32_t slot = -1;
    std::vector<int32_t> tokens;  // model::kPendingToken where a step in flight draws it
    int32_t prompt_size = 0;
    engine::SamplingParams sampling;
    std::vector<int32_t> blocks;
    std::vector<model::TokenCount> counts;  // ordered by id; kept where a penalty is on
    std::optional<DrawRules> rules;         // where its draws are restrained or steered
    std::optional<RankAnswer> answer;       // where it is held to a grammar, or its reasoning to a budget
    int32_t pending_row = -1;               // of the step in flight that draws the last token
    uint64_t last_plan = 0;                 // in which it had a row, by plans_
  };
  struct SampledRow {
    engine::SequenceId id;
    uint64_t incarnation = 0;
    bool sample = false;
    bool all_forbidden = false;         // no token that may be drawn
    size_t position = 0;                // of the drawn token
    int32_t prompt_logprobs_start = 0;  // position of the first target's token
    int32_t prompt_logprobs_count = 0;
    bool ranked = false;  // with ranks and best tokens
    bool constrained_later = false;
    kernels::TokenConstraint others;  // beside the answer's rules, where those come later
  };
  struct Step {
    engine::Epoch epoch;
    engine::StepId id;
    std::vector<SampledRow> rows;
    bool decode = false;              // one token per row
    bool awaits_constraints = false;  // some row does
  };

  static std::span<const int32_t> generated(const Sequence& sequence);
  Result<void> start(const engine::SequenceStart& start);
  Result<void> append(const engine::BlockAppend& append);
  Result<model::BatchRow> batch_row(const engine::StepRow& row, std::vector<int32_t>& targets, SampledRow& sampled);

  model::RankModel& model_;
  int32_t rank_, block_size_, num_blocks_, num_slots_;
  FindGrammar grammars_;
  int32_t vocab_size_;
  uint64_t next_incarnation_ = 1;
  uint64_t plans_ = 0;  // begun, this one included
  std::unordered_map<engine::SequenceId, Sequence> sequences_;
  std::deque<Step> steps_;
};

}  // namespace lorikeet::actors
