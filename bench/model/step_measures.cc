#include "bench/model/step_measures.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace lorikeet::model {
namespace {

constexpr int kWarmUpSteps = StepRunner::kWarmUpSteps;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.at(std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size()))));
}

std::string name_of_step(int32_t rows, StepAdapters adapters, const Draw& draw, bool fused) {
  std::string name = fmt::format("{} rows", rows);
  if (adapters.mixed) {
    name += fmt::format(", another mix of {} adapters every step", adapters.count);
  } else if (adapters.count > 0) {
    name += fmt::format(", {} adapters of rank {}", adapters.count, kBenchLoraRank);
  }
  if (adapters.count > 0) name += fused ? ", in the products" : ", apart";
  if (draw.name != nullptr) name += fmt::format(", {}", draw.name);
  return name;
}

// Steps before those that count: the first one of its size captures its graph.
template <class Step>
void warm_up(const bench::StepPace& pace, Step&& step) {
  const bench::StepPace own{3, kWarmUpSteps, pace.seconds};
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; own.goes_on(i, seconds_since(begin)); ++i) step();
}

}  // namespace

void StepMeasures::print_decode_head() {
  fmt::print("{:64} {:>9} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9}\n", "decode steps", "ms", "GPU ms", "floor ms", "share",
             "tokens/s", "idle us", "p99 us");
}

StepFigures StepMeasures::decode(int32_t rows, StepAdapters adapters, const Draw& draw) {
  CudaModel& model = runner_.model();
  const int64_t fused_before = model.lora_steps().fused;
  const std::span<StepSequence> sequences = runner_.behind_their_prompts(rows);
  std::vector<double> gpu_ms, idle_us, gaps_ms;
  runner_.begin_step(sequences, draw, adapters);
  const auto step = [&] {
    runner_.begin_step(sequences, draw, adapters);
    runner_.finish_step(sequences);
  };
  warm_up(decode_, step);
  if (times_ != nullptr) {
    runner_.finish_step(sequences);
    kernels::synchronize_device();
    times_->begin();
    runner_.begin_step(sequences, draw, adapters);
    for (int i = 0; i < kWarmUpSteps; ++i) step();
    runner_.finish_step(sequences);
    kernels::synchronize_device();
    print_kernels(name_of_step(rows, adapters, draw, model.lora_steps().fused > fused_before), kWarmUpSteps + 1);
    return {};
  }
  const auto begin = std::chrono::steady_clock::now();
  int steps = 0;
  for (; decode_.goes_on(steps, seconds_since(begin)); ++steps) {
    const double before = seconds_since(begin);
    step();
    gaps_ms.push_back(1e3 * (seconds_since(begin) - before));
    const StepTimes times = model.step_times();
    gpu_ms.push_back(times.ms);
    idle_us.push_back(1e3 * times.idle_ms);
  }
  StepFigures figures;
  figures.ms = 1e3 * seconds_since(begin) / steps;
  runner_.finish_step(sequences);
  figures.gpu_ms = percentile(gpu_ms, 0.5);
  figures.floor_ms = runner_.decode_floor_ms(rows, context_ + kWarmUpSteps + steps / 2, adapters.count);
  figures.p99_ms = percentile(gaps_ms, 0.99);
  figures.tokens_per_second = 1e3 * rows / figures.ms;
  const bool fused = model.lora_steps().fused > fused_before;
  fmt::print("{:64} {:9.3f} {:9.3f} {:9.3f} {:5.0f}% {:9.0f} {:9.1f} {:9.1f}\n",
             name_of_step(rows, adapters, draw, fused), figures.ms, figures.gpu_ms, figures.floor_ms,
             100 * figures.floor_ms / figures.ms, figures.tokens_per_second, percentile(idle_us, 0.5),
             percentile(idle_us, 0.99));
  std::fflush(stdout);
  return figures;
}

void StepMeasures::again(int32_t count, int32_t positions) {
  std::vector<BatchRow> rows;
  for (const StepSequence& s : runner_.behind_their_prompts(count)) {
    BatchRow row;
    row.start = context_ - positions;
    row.token_ids = std::span<const int32_t>(s.ids).subspan(static_cast<size_t>(row.start));
    row.block_table = s.blocks;
    row.sample = true;
    rows.push_back(row);
  }
  CudaModel& model = runner_.model();
  for (const bool as_decode_rows : {true, false}) {
    for (BatchRow& row : rows) row.decode = as_decode_rows;
    std::vector<double> gpu_ms;
    model.begin_step(rows);
    for (int i = 0; i < kWarmUpSteps + decode_.most; ++i) {
      model.begin_step(rows);
      model.finish_step();
      if (i >= kWarmUpSteps) gpu_ms.push_back(model.step_times().ms);
    }
    model.finish_step();
    fmt::print("{} sequences, {} positions of each, {:27}{:>9} {:9.3f}\n", count, positions,
               as_decode_rows ? "as decode rows" : "as prompts are", "", percentile(gpu_ms, 0.5));
  }
}

void StepMeasures::print_mixed_head() {
  fmt::print("{:64} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "rows while prompts arrive", "gap ms", "p99 ms", "p99 / gap",
             "tokens/s", "of prompts");
}

StepFigures StepMeasures::mixed(int32_t rows, int32_t budget) {
  constexpr int32_t kPrompt = StepRunner::kLongestPrompt;
  const std::span<StepSequence> sequences = runner_.behind_their_prompts(rows);
  const StepSequence prompt = runner_.new_prompt(kPrompt);
  int32_t done = 0;
  int64_t prompt_tokens = 0;
  const auto begin = [&] {
    if (budget <= rows) return runner_.begin_step(sequences, {}, {});
    const int32_t size = std::min(budget - rows, kPrompt - done);
    BatchRow row;
    row.token_ids = std::span<const int32_t>(prompt.ids).subspan(static_cast<size_t>(done), static_cast<size_t>(size));
    row.prompt_size = kPrompt;
    row.start = done;
    row.block_table = prompt.blocks;
    done = (done + size) % kPrompt;
    row.sample = done == 0;
    prompt_tokens += size;
    runner_.begin_step(sequences, {}, {}, &row);
  };
  begin();
  warm_up(mixed_, [&] {
    begin();
    runner_.finish_step(sequences);
  });
  prompt_tokens = 0;
  bench::StepPace pace = mixed_;
  if (budget > rows) pace.least = std::max(pace.least, 2 * ((kPrompt + budget - rows - 1) / (budget - rows)));
  std::vector<double> gaps_ms, gpu_ms;
  const auto start = std::chrono::steady_clock::now();
  int steps = 0;
  for (; pace.goes_on(steps, seconds_since(start)); ++steps) {
    const double before = seconds_since(start);
    begin();
    runner_.finish_step(sequences);
    gaps_ms.push_back(1e3 * (seconds_since(start) - before));
    gpu_ms.push_back(runner_.model().step_times().ms);
  }
  const double seconds = seconds_since(start);
  runner_.finish_step(sequences);
  StepFigures figures;
  figures.ms = percentile(gaps_ms, 0.5);
  figures.gpu_ms = percentile(gpu_ms, 0.5);
  figures.floor_ms = runner_.decode_floor_ms(rows, context_ + kWarmUpSteps + steps / 2, 0);
  figures.p99_ms = percentile(gaps_ms, 0.99);
  figures.tokens_per_second = rows * steps / seconds;
  const std::string name = budget == 0 ? fmt::format("{} rows, no prompts", rows)
                                       : fmt::format("{} rows, prompts, {} tokens a step", rows, budget);
  fmt::print("{:64} {:9.2f} {:9.2f} {:9.2f} {:9.0f} {:9.0f}\n", name, figures.ms, figures.p99_ms,
             figures.p99_ms / figures.ms, figures.tokens_per_second, static_cast<double>(prompt_tokens) / seconds);
  std::fflush(stdout);
  return figures;
}

void StepMeasures::prompt(int32_t tokens, int32_t slot) {
  const StepSequence sequence = runner_.new_prompt(tokens);
  CudaModel& model = runner_.model();
  const auto once = [&] {
    BatchRow row;
    row.token_ids = sequence.ids;
    row.prompt_size = tokens;
    row.block_table = sequence.blocks;
    row.slot = slot;
    row.sample = true;
    model.begin_step({&row, 1});
    model.finish_step();
    return model.step_times().ms;
  };
  once();
  const std::string name = fmt::format("prompt of {} tokens{}", tokens, slot < 0 ? "" : ", with an adapter");
  if (times_ != nullptr) {
    kernels::synchronize_device();
    times_->begin();
    once();
    kernels::synchronize_device();
    print_kernels(name, 1);
    return;
  }
  std::vector<double> ms, host_ms;
  for (int i = 0; i < 7; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    ms.push_back(once());
    host_ms.push_back(1e3 * seconds_since(begin));
  }
  const double floor_ms = runner_.prompt_floor_ms(tokens);
  const double median = percentile(ms, 0.5);
  fmt::print("{:64} {:9.2f} {:9.2f} {:9.2f} {:5.0f}% {:9.0f}\n", name, percentile(host_ms, 0.5), median, floor_ms,
             100 * floor_ms / median, 1e3 * tokens / median);
  std::fflush(stdout);
}

void StepMeasures::print_kernels(const std::string& name, int steps) {
  fmt::print("{}, per step:\n{:36} {:>8} {:>10} {:>10} {:>10}\n", name, "kernel", "count", "us each", "us in all",
             "added us");
  double added = 0;
  for (const bench::KernelTime& time : times_->end()) {
    const auto count = static_cast<double>(time.count);
    fmt::print("{:36} {:8.1f} {:10.2f} {:10.1f} {:10.1f}\n", time.name, count / steps, time.us / count, time.us / steps,
               time.added_us / steps);
    added += time.added_us / steps;
  }
  fmt::print("{:36} {:>8} {:>10} {:>10} {:10.1f}\n", "sum", "", "", "", added);
  std::fflush(stdout);
}

}  // namespace lorikeet::model
