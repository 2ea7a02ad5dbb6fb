#include "model/forward/sample_plan.h"

#include <glog/logging.h>

#include <algorithm>

namespace lorikeet::model {
namespace {

// A token whose logits somebody wants.
struct Want {
  int32_t row = 0;
  int32_t index = 0;    // of the token within the row
  int32_t target = -1;  // the log-probability of this token is wanted
  bool sample = false;
};

std::vector<Want> wants_of(const StepBatch& batch) {
  std::vector<Want> wants;
  for (const int32_t r : batch.order) {
    const BatchRow& row = batch.rows[static_cast<size_t>(r)];
    const auto size = static_cast<int32_t>(row.token_ids.size());
    for (int32_t i = row.logprob_targets.empty() ? size - 1 : 0; i < size; ++i) {
      Want want{r, i, -1, row.sample && i + 1 == size};
      if (!row.logprob_targets.empty()) want.target = row.logprob_targets[static_cast<size_t>(i)];
      if (want.target >= 0 || want.sample) wants.push_back(want);
    }
  }
  // Logits whose draws are filtered are gathered over the ranks: they come behind each other.
  std::stable_partition(wants.begin(), wants.end(), [&](const Want& want) {
    return !want.sample || !is_filtered(batch.rows[static_cast<size_t>(want.row)]);
  });
  return wants;
}

class Planner {
 public:
  Planner(const StepBatch& batch, bool logits_exist, const SampleLimits& limits)
      : batch_(batch), logits_exist_(logits_exist), limits_(limits) {}

  void add(const Want& want) {
    const BatchRow& row = batch_.rows[static_cast<size_t>(want.row)];
    const int32_t top = want.sample ? std::clamp(row.sampling.logprobs, 0, limits_.vocab) : 0;
    const bool ranked = want.target >= 0 && row.sampling.target_top_logprobs >= 0;
    const int32_t target_top = ranked ? std::min(row.sampling.target_top_logprobs, limits_.vocab) : 0;
    const size_t counts = want.sample ? row.counts.size() : 0;
    const size_t biases = want.sample ? row.constraint.biases.size() : 0;
    if (portions_.empty() || !fits(std::max(top, target_top), counts, biases)) {
      portions_.emplace_back();
      rows_ = 0;
    }
    SamplePortion& portion = portions_.back();
    const int32_t token = batch_.first_tokens[static_cast<size_t>(want.row)] + want.index;
    const int32_t logits_row = logits_exist_ ? token : rows_;
    ++rows_;
    if (!logits_exist_) {
      portion.tokens.push_back(token);
      portion.adapter_slots.push_back(row.slot);
    }
    const int32_t draw_index = want.sample ? static_cast<int32_t>(portion.draws.size()) : -1;
    if (want.sample) draw(portion, want, logits_row);
    const bool constrained = want.sample && (row.constraint.any() || row.constrained_later);
    const int32_t constraint = constrained ? constrain(portion, want.row, token, logits_row) : -1;
    if (want.target >= 0) {
      portion.logprobs.push_back({logits_row, target_top, want.target, draw_index, constraint});
      portion.uses.push_back({want.row, want.index, target_top, ranked});
      portion.stride = std::max(portion.stride, target_top);
      portion.ranked |= ranked;
    }
    if (want.sample && row.sampling.logprobs >= 0) {
      portion.logprobs.push_back({logits_row, top, ~want.row, draw_index, constraint});
      portion.uses.push_back({want.row, -1, top, false});
      portion.stride = std::max(portion.stride, top);
    }
  }

  std::vector<SamplePortion> take() { return std::move(portions_); }

 private:
  bool fits(int32_t top, size_t counts, size_t biases) const {
    const SamplePortion& portion = portions_.back();
    const auto lists = static_cast<int64_t>(portion.logprobs.size()) + 2;
    const int64_t stride = std::max(portion.stride, top);
    return rows_ < limits_.rows && static_cast<int64_t>(portion.counts.size() + counts) <= limits_.counts &&
           static_cast<int64_t>(portion.biases.size() + biases) <= limits_.biases && lists * stride <= limits_.best;
  }

  // Its place among the portion's constrained rows. `token` is the step's token whose logits they are.
  int32_t constrain(SamplePortion& portion, int32_t batch_row, int32_t token, int32_t logits_row) const {
    const BatchRow& row = batch_.rows[static_cast<size_t>(batch_row)];
    const auto index = static_cast<int32_t>(portion.constrained.size());
    kernels::ConstrainedRow to;
    to.logits_row = logits_row;
    to.last_token = token;
    to.mask_begin = static_cast<int32_t>(portion.masks.size());
    const auto most = static_cast<size_t>(kernels::mask_words(limits_.vocab));
    const auto allowed = row.constraint.allowed.first(std::min(row.constraint.allowed.size(), most));
    to.mask_words = static_cast<int32_t>(allowed.size());
    portion.masks.insert(portion.masks.end(), allowed.begin(), allowed.end());
    if (row.constrained_later) {
      portion.later.push_back({index, batch_row});
      portion.masks.resize(static_cast<size_t>(to.mask_begin) + most);
    }
    to.biases_begin = static_cast<int32_t>(portion.biases.size());
    portion.biases.insert(portion.biases.end(), row.constraint.biases.begin(), row.constraint.biases.end());
    to.biases_end = static_cast<int32_t>(portion.biases.size());
    portion.constrained.push_back(to);
    return index;
  }

  void draw(SamplePortion& portion, const Want& want, int32_t logits_row) {
    const BatchRow& row = batch_.rows[static_cast<size_t>(want.row)];
    const RowSampling& s = row.sampling;
    kernels::DrawRow draw;
    draw.seed = s.seed;
    draw.position = row.start + static_cast<int32_t>(row.token_ids.size());
    draw.logits_row = logits_row;
    draw.draw_row = want.row;
    draw.temperature = s.temperature;
    draw.top_p = s.top_p;
    draw.min_p = s.min_p;
    draw.top_k = s.top_k;
    draw.repetition_penalty = s.repetition_penalty;
    draw.presence_penalty = s.presence_penalty;
    draw.frequency_penalty = s.frequency_penalty;
    draw.counts_begin = draw.counts_end = static_cast<int32_t>(portion.counts.size());
    if (draw.penalised()) {
      portion.penalties = true;
      for (const TokenCount& count : row.counts) {
        portion.counts.push_back({count.token_id, count.in_output, count.in_prompt ? 1 : 0});
      }
      draw.counts_end = static_cast<int32_t>(portion.counts.size());
      if (row.token_ids.back() == kPendingToken) draw.pending = batch_.first_tokens[static_cast<size_t>(want.row)];
    }
    if (!draw.filtered()) ++portion.unfiltered;
    portion.draws.push_back(draw);
  }

  const StepBatch& batch_;
  const bool logits_exist_;
  const SampleLimits& limits_;
  std::vector<SamplePortion> portions_;
  int32_t rows_ = 0;  // of logits in the last portion
};

}  // namespace

std::vector<SamplePortion> plan_samples(const StepBatch& batch, bool logits_exist, const SampleLimits& limits) {
  Planner planner(batch, logits_exist, limits);
  for (const Want& want : wants_of(batch)) planner.add(want);
  return planner.take();
}

void SamplePortion::constrain_later(std::span<const kernels::TokenConstraint> constraints) {
  for (size_t i = 0; i < later.size(); ++i) {
    kernels::ConstrainedRow& to = constrained[static_cast<size_t>(later[i].constrained)];
    const kernels::TokenConstraint& from = constraints[static_cast<size_t>(later[i].row)];
    CHECK_LE(from.biases.size(), static_cast<size_t>(to.biases_end - to.biases_begin));
    const auto next = static_cast<size_t>(later[i].constrained) + 1;
    const auto masks_end = next < constrained.size() ? static_cast<size_t>(constrained[next].mask_begin) : masks.size();
    const auto allowed =
        from.allowed.first(std::min(from.allowed.size(), masks_end - static_cast<size_t>(to.mask_begin)));
    std::copy(allowed.begin(), allowed.end(), masks.begin() + to.mask_begin);
    to.mask_words = static_cast<int32_t>(allowed.size());
    std::copy(from.biases.begin(), from.biases.end(), biases.begin() + to.biases_begin);
    to.biases_end = to.biases_begin + static_cast<int32_t>(from.biases.size());
  }
}

SampleArrays::SampleArrays(const SamplePortion& portion, uint64_t lora_bytes, Carver& carver)
    : tokens(carver.take<int32_t>(static_cast<int64_t>(portion.tokens.size()))),
      draws(carver.take<kernels::DrawRow>(static_cast<int64_t>(portion.draws.size()))),
      logprobs(carver.take<kernels::LogprobRow>(static_cast<int64_t>(portion.logprobs.size()))),
      lora_rows(carver.take<unsigned char>(static_cast<int64_t>(lora_bytes))) {}

void SampleArrays::write(const SamplePortion& portion) const {
  std::copy(portion.tokens.begin(), portion.tokens.end(), tokens);
  std::copy(portion.draws.begin(), portion.draws.end(), draws);
  std::copy(portion.logprobs.begin(), portion.logprobs.end(), logprobs);
}

ConstraintArrays::ConstraintArrays(const SamplePortion& portion, Carver& carver)
    : rows(carver.take<kernels::ConstrainedRow>(static_cast<int64_t>(portion.constrained.size()))),
      biases(carver.take<kernels::TokenBias>(static_cast<int64_t>(portion.biases.size()))),
      masks(carver.take<uint32_t>(static_cast<int64_t>(portion.masks.size()))) {}

void ConstraintArrays::write(const SamplePortion& portion) const {
  std::copy(portion.constrained.begin(), portion.constrained.end(), rows);
  std::copy(portion.biases.begin(), portion.biases.end(), biases);
  std::copy(portion.masks.begin(), portion.masks.end(), masks);
}

}  // namespace lorikeet::model
