#include "actors/wire/step_pace.h"

#include <algorithm>

namespace lorikeet::actors {
namespace {

// Rates (bytes and operations a second) of machines slower than any that would be served on.
struct Rates {
  double bytes, operations;
};
constexpr Rates kSlowCpu{2e9, 1e9}, kSlowGpu{1e11, 1e13};

}  // namespace

StepPace::Floor StepPace::floor_of(const engine::StepPlan& plan) const {
  double tokens = 0, draws = 0, pairs = 0, positions = 0;
  for (const engine::StepRow& row : plan.rows) {
    const double count = row.count, start = row.start;
    tokens += count;
    draws += row.sample ? 1 : 0;
    pairs += count * start + count * (count + 1) / 2;
    positions += start + count;
  }
  const double operations = tokens * cost_.layer_flops_per_token + draws * cost_.lm_head_flops_per_row +
                            pairs * cost_.attention_flops_per_pair;
  const double bytes = static_cast<double>(cost_.layer_bytes + cost_.lm_head_bytes) +
                       positions * static_cast<double>(cost_.kv_bytes_per_position);
  const Rates& rates = on_gpu_ ? kSlowGpu : kSlowCpu;
  const double computing = operations / rates.operations, moving = bytes / rates.bytes;
  const bool may_compile = std::any_of(plan.starts.begin(), plan.starts.end(), [](const engine::SequenceStart& start) {
    return start.sampling.answer.grammar_kind >= 0;
  });
  return {std::max(computing, moving), computing > moving, may_compile};
}

StepPace::Milliseconds StepPace::limit_of(const Floor& floor) const {
  const Kind& kind = kinds_[floor.by_operations ? 1 : 0];
  double worst = 1;
  if (kind.count >= kEnough) {
    auto floors = kind.floors;
    const auto count = static_cast<ptrdiff_t>(std::min<uint64_t>(kSeen, kind.count));
    const auto at = floors.begin() + (count - 1 - count / 8);
    std::nth_element(floors.begin(), at, floors.begin() + count);
    worst = *at;
  }
  const double work = std::min(1e3 * kMargin * floor.seconds * worst, static_cast<double>(kLongest.count()));
  const Milliseconds for_grammars = floor.may_compile ? kForGrammars : Milliseconds(0);
  return allowance_ + for_grammars + Milliseconds(static_cast<int64_t>(work));
}

void StepPace::took(const Floor& floor, std::chrono::nanoseconds time) {
  if (floor.seconds <= 0 || floor.may_compile) return;
  Kind& kind = kinds_[floor.by_operations ? 1 : 0];
  kind.floors[kind.count++ % kSeen] = 1e-9 * static_cast<double>(time.count()) / floor.seconds;
}

}  // namespace lorikeet::actors
