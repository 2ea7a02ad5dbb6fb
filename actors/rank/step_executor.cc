#include "actors/rank/step_executor.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace lorikeet::actors {
namespace {

bool has_penalty(const engine::SamplingParams& sampling) {
  return sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 || sampling.frequency_penalty != 0;
}

void count_token(std::vector<model::TokenCount>& counts, int32_t id, bool in_prompt) {
  auto it = std::lower_bound(counts.begin(), counts.end(), id,
                             [](const model::TokenCount& count, int32_t token) { return count.token_id < token; });
  if (it == counts.end() || it->token_id != id) it = counts.insert(it, {id, 0, false});
  if (in_prompt) {
    it->in_prompt = true;
  } else {
    ++it->in_output;
  }
}

std::vector<model::TokenCount> counts_of(std::vector<int32_t> prompt, const std::vector<int32_t>& output) {
  std::vector<model::TokenCount> counts;
  std::sort(prompt.begin(), prompt.end());
  prompt.erase(std::unique(prompt.begin(), prompt.end()), prompt.end());
  for (const int32_t id : prompt) counts.push_back({id, 0, true});
  for (const int32_t id : output) count_token(counts, id, false);
  return counts;
}

uint64_t nanoseconds(double ms) {
  return ms > 0 ? static_cast<uint64_t>(ms * 1e6) : 0;
}

model::RowSampling row_sampling(const engine::SamplingParams& from) {
  model::RowSampling to;
  to.temperature = from.temperature;
  to.top_p = from.top_p;
  to.top_k = from.top_k;
  to.min_p = from.min_p;
  to.repetition_penalty = from.repetition_penalty;
  to.presence_penalty = from.presence_penalty;
  to.frequency_penalty = from.frequency_penalty;
  to.seed = from.seed;
  to.logprobs = from.logprobs;
  return to;
}

}  // namespace

Result<void> StepExecutor::start(const engine::SequenceStart& start) {
  const auto size = static_cast<int64_t>(start.token_ids.size());
  if (size < 1 || start.prompt_size < 1 || start.prompt_size > size) {
    return fail("sequence {} starts with {} tokens, {} of them prompt", start.id.value(), size, start.prompt_size);
  }
  if (std::any_of(start.token_ids.begin(), start.token_ids.end(), [](int32_t id) { return id < 0; })) {
    return fail("sequence {} starts with a token that is none", start.id.value());
  }
  if (start.slot.value() < -1 || start.slot.value() >= num_slots_) {
    return fail("sequence {} starts in adapter slot {} of {}", start.id.value(), start.slot.value(), num_slots_);
  }
  Sequence sequence;
  sequence.incarnation = next_incarnation_++;
  sequence.slot = start.slot.value();
  sequence.tokens = start.token_ids;
  sequence.prompt_size = start.prompt_size;
  sequence.sampling = start.sampling;
  if (has_penalty(start.sampling)) {
    const auto prompt_end = start.token_ids.begin() + start.prompt_size;
    sequence.counts = counts_of({start.token_ids.begin(), prompt_end}, {prompt_end, start.token_ids.end()});
  }
  sequence.rules = DrawRules::make(start.sampling);
  if (start.sampling.answer.any()) sequence.answer.emplace(start.sampling.answer, grammars_, vocab_size_);
  sequences_.insert_or_assign(start.id, std::move(sequence));
  return {};
}

Result<void> StepExecutor::append(const engine::BlockAppend& append) {
  const auto it = sequences_.find(append.id);
  if (it == sequences_.end()) return fail("blocks for sequence {}, which is not here", append.id.value());
  for (const engine::BlockId block : append.blocks) {
    if (block.value() < 0 || block.value() >= num_blocks_) {
      return fail("sequence {} gets block {} of {}", append.id.value(), block.value(), num_blocks_);
    }
    it->second.blocks.push_back(block.value());
  }
  return {};
}

Result<model::BatchRow> StepExecutor::batch_row(const engine::StepRow& row, std::vector<int32_t>& targets,
                                                SampledRow& sampled) {
  const auto it = sequences_.find(row.id);
  if (it == sequences_.end()) return fail("a row of sequence {}, which is not here", row.id.value());
  Sequence& sequence = it->second;
  if (std::exchange(sequence.last_plan, plans_) == plans_) {
    return fail("two rows of sequence {} in one plan", row.id.value());
  }
  const int64_t end = int64_t{row.start} + row.count;
  const auto known = static_cast<int64_t>(sequence.tokens.size());
  if (row.start < 0 || row.count < 1 || end > known || (row.sample && end != known)) {
    return fail("a row of positions {} .. {} of sequence {}, which has {} tokens", row.start, end - 1, row.id.value(),
                known);
  }
  if (end > static_cast<int64_t>(sequence.blocks.size()) * block_size_) {
    return fail("a row up to position {} of sequence {}, which has {} blocks", end - 1, row.id.value(),
                sequence.blocks.size());
  }
  model::BatchRow batch;
  batch.token_ids = std::span(sequence.tokens).subspan(static_cast<size_t>(row.start), static_cast<size_t>(row.count));
  // Only the last token can be pending, and only in the step that was begun just before this one.
  if (batch.token_ids.back() == model::kPendingToken) {
    if (row.count != 1) return fail("{} positions of sequence {}, the last not drawn yet", row.count, row.id.value());
    batch.pending_row = sequence.pending_row;
  }
  batch.prompt_size = sequence.prompt_size;
  batch.start = row.start;
  batch.block_table = sequence.blocks;
  batch.slot = sequence.slot;
  batch.sample = row.sample;
  // Tokens that it had generated before it was preempted or its ranks were lost: decoding computed them one by one.
  batch.decode = row.start >= sequence.prompt_size && row.count <= model::kMostDecodePositions;
  batch.sampling = row_sampling(sequence.sampling);
  batch.counts = sequence.counts;
  if (row.sample && sequence.rules) batch.constraint = sequence.rules->next(generated(sequence));
  if (row.sample && sequence.answer) {
    if (model_.constrains_later() && sequence.answer->must_wait(generated(sequence))) {
      batch.constrained_later = sampled.constrained_later = true;
      sampled.others = batch.constraint;
    } else {
      batch.constraint = sequence.answer->next(generated(sequence), batch.constraint);
    }
  }
  sampled.all_forbidden = !sampled.constrained_later && !leaves_a_token(batch.constraint, vocab_size_);
  const int32_t last_target = sequence.prompt_size - 1;  // the last position whose next token is a prompt token, + 1
  if (sequence.sampling.prompt_logprobs && row.start < last_target) {
    targets.assign(static_cast<size_t>(row.count), -1);
    sampled.prompt_logprobs_start = row.start + 1;
    sampled.prompt_logprobs_count = static_cast<int32_t>(std::min<int64_t>(end, last_target)) - row.start;
    for (int32_t i = 0; i < sampled.prompt_logprobs_count; ++i) {
      targets[static_cast<size_t>(i)] = sequence.tokens[static_cast<size_t>(row.start + i + 1)];
    }
    batch.logprob_targets = targets;
    batch.sampling.target_top_logprobs = sequence.sampling.prompt_top_logprobs;
    sampled.ranked = sequence.sampling.prompt_top_logprobs >= 0;
  }
  sampled.id = row.id;
  sampled.incarnation = sequence.incarnation;
  sampled.sample = row.sample;
  sampled.position = static_cast<size_t>(end);
  return batch;
}

std::span<const int32_t> StepExecutor::generated(const Sequence& sequence) {
  return std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.prompt_size));
}

bool StepExecutor::must_wait(const engine::StepPlan& plan) {
  if (steps_.empty() || model_.constrains_later()) return false;
  return std::any_of(plan.rows.begin(), plan.rows.end(), [this](const engine::StepRow& row) {
    const auto it = row.sample ? sequences_.find(row.id) : sequences_.end();
    return it != sequences_.end() && it->second.answer && it->second.answer->must_wait(generated(it->second));
  });
}

Result<void> StepExecutor::begin(const engine::StepPlan& plan) {
  CHECK_LT(steps_.size(), static_cast<size_t>(model::RankModel::kMaxStepsInFlight));
  for (const engine::SequenceId id : plan.finished) sequences_.erase(id);
  for (const engine::SequenceStart& s : plan.starts) {
    if (auto ok = start(s); !ok) return ok;
  }
  for (const engine::BlockAppend& a : plan.blocks) {
    if (auto ok = append(a); !ok) return ok;
  }
  Step step{plan.epoch, plan.step, std::vector<SampledRow>(plan.rows.size()), true};
  for (const engine::StepRow& row : plan.rows) step.decode = step.decode && row.count == 1;
  ++plans_;
  std::vector<std::vector<int32_t>> targets(plan.rows.size());
  std::vector<model::BatchRow> rows;
  rows.reserve(plan.rows.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    auto row = batch_row(plan.rows[i], targets[i], step.rows[i]);
    if (!row) return tl::unexpected(row.error());
    rows.push_back(*row);
    step.awaits_constraints |= row->constrained_later;
  }
  model_.begin_step(rows);
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    if (!plan.rows[i].sample) continue;
    Sequence& sequence = sequences_.at(plan.rows[i].id);
    sequence.tokens.push_back(model::kPendingToken);
    sequence.pending_row = static_cast<int32_t>(i);
  }
  steps_.push_back(std::move(step));
  return {};
}

void StepExecutor::constrain() {
  CHECK(awaits_constraints());
  CHECK_EQ(steps_.size(), 1U);
  Step& step = steps_.back();
  std::vector<kernels::TokenConstraint> constraints(step.rows.size());
  for (size_t i = 0; i < step.rows.size(); ++i) {
    SampledRow& row = step.rows[i];
    if (!row.constrained_later) continue;
    Sequence& sequence = sequences_.at(row.id);
    const auto prompt = static_cast<size_t>(sequence.prompt_size);
    const auto before = std::span<const int32_t>(sequence.tokens).subspan(prompt, row.position - prompt);
    constraints[i] = sequence.answer->next(before, row.others);
    row.all_forbidden = !leaves_a_token(constraints[i], vocab_size_);
  }
  step.awaits_constraints = false;
  model_.constrain_step(constraints);
}

Result<engine::StepResult> StepExecutor::finish() {
  CHECK(!steps_.empty());
  std::vector<model::RowOutput> outputs = model_.finish_step();
  const Step step = std::move(steps_.front());
  steps_.pop_front();
  CHECK_EQ(outputs.size(), step.rows.size());
  engine::StepResult result;
  result.epoch = step.epoch;
  result.step = step.id;
  result.rank = rank_;
  const model::StepTimes times = model_.step_times();
  result.times = {nanoseconds(times.ms), nanoseconds(times.idle_ms), step.decode};
  result.rows.resize(step.rows.size());
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const SampledRow& row = step.rows[i];
    model::RowOutput& output = outputs[i];
    engine::RowResult& to = result.rows[i];
    to.id = row.id;
    const bool no_token = row.sample && output.token_id < 0;
    if (row.sample) {
      to.token_id = !no_token ? output.token_id : row.all_forbidden ? engine::kAllForbidden : engine::kNoToken;
      // Rows planned behind a row without a token are computed with kTokenInstead, as the model does while that row is in
      // flight.
      const int32_t token = no_token ? model::kTokenInstead : output.token_id;
      const auto it = sequences_.find(row.id);
      if (it != sequences_.end() && it->second.incarnation == row.incarnation) {
        it->second.tokens[row.position] = token;
        if (has_penalty(it->second.sampling)) count_token(it->second.counts, token, false);
      }
    }
    if (rank_ != 0) continue;
    if (!no_token) {
      for (const model::TokenProbability& p : output.logprobs) to.logprobs.push_back({p.token_id, p.logprob});
    }
    if (row.prompt_logprobs_count > 0) {
      CHECK_GE(output.target_logprobs.size(), static_cast<size_t>(row.prompt_logprobs_count));
      engine::PromptResult& prompt = result.prompts.emplace_back();
      prompt.row = static_cast<int32_t>(i);
      prompt.start = row.prompt_logprobs_start;
      prompt.logprobs.assign(output.target_logprobs.begin(),
                             output.target_logprobs.begin() + row.prompt_logprobs_count);
      if (!row.ranked) continue;
      CHECK_GE(output.target_ranks.size(), prompt.logprobs.size());
      CHECK_GE(output.target_best.size(), prompt.logprobs.size());
      prompt.ranks.assign(output.target_ranks.begin(), output.target_ranks.begin() + row.prompt_logprobs_count);
      for (size_t p = 0; p < prompt.logprobs.size(); ++p) {
        auto& best = prompt.best.emplace_back();
        for (const model::TokenProbability& token : output.target_best[p])
          best.push_back({token.token_id, token.logprob});
      }
    }
  }
  return result;
}

}  // namespace lorikeet::actors
