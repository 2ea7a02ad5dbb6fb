#include "bench/model/step_slices.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "bench/model/step_measures.h"
#include "bench/model/step_table.h"

namespace lorikeet::model {
namespace {

using bench::StepKind;
using bench::StepPoint;

// A figure of steps that take long is made of few.
constexpr int kLeastSteps = 12;
constexpr double kDecodeSeconds = 0.25;
constexpr double kMixedSeconds = 1.5;
constexpr double kWarmUpSeconds = 1;

StepFigures measure(StepMeasures& measures, const StepPoint& point) {
  const int32_t adapters = std::min(point.rows, StepRunner::kAdapters);
  switch (point.kind) {
    case StepKind::plain:
      break;
    case StepKind::one_adapter:
      return measures.decode(point.rows, {1}, {});
    case StepKind::own_adapters:
      return measures.decode(point.rows, {adapters}, {});
    case StepKind::draw:
      return measures.decode(point.rows, {}, draws().at(static_cast<size_t>(point.variant)));
    case StepKind::mixed:
      return measures.mixed(point.rows, point.variant);
  }
  return measures.decode(point.rows, {}, {});
}

}  // namespace

int run_slice(const bench::StepBenchOptions& options, const bench::StepFloors& floors, comm::Rendezvous& store) {
  const auto begin = std::chrono::steady_clock::now();
  const auto passed = [begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const std::vector<StepPoint> points = bench::step_points(static_cast<int32_t>(draws().size()));
  bench::StepTable table(options.full, bench::digest_of("/proc/self/exe"), kernels::device_properties().name);
  const size_t done_before = table.done(points);
  double longest_start = 0;  // of a model, with its prompts
  bool writes = true;
  while (writes) {
    const std::vector<StepPoint> group = table.next_group(points);
    if (group.empty() || (longest_start > 0 && passed() + longest_start > options.seconds)) break;
    bench::StepBenchOptions own = options;
    own.context = group.front().context;
    own.fp8 = group.front().fp8;
    own.rows = 0;
    own.adapters = false;
    for (const StepPoint& point : group) {
      own.rows = std::max(own.rows, point.rows);
      own.adapters |= point.kind == StepKind::one_adapter || point.kind == StepKind::own_adapters;
    }
    fmt::print("\ncontext {}, keys and values in {}\n", own.context, own.fp8 ? "fp8" : "fp16");
    const double before = passed();
    StepRunner runner(own, 0, floors, store);
    runner.start(true);
    if (runner.rows() > 0) runner.warm_up(kWarmUpSeconds);
    longest_start = std::max(longest_start, passed() - before);
    StepMeasures measures(runner, {kLeastSteps, own.steps, kDecodeSeconds}, {0, 3 * own.steps, kMixedSeconds},
                          own.context, nullptr);
    StepMeasures::print_decode_head();
    for (const StepPoint& point : group) {
      bench::StepRecord record;
      record.fits = point.rows <= runner.rows();
      if (record.fits) {
        const StepFigures figures = measure(measures, point);
        record.ms = figures.ms;
        record.gpu_ms = figures.gpu_ms;
        record.floor_ms = figures.floor_ms;
        record.p99_ms = figures.p99_ms;
      }
      writes = table.add(point, record);
      if (!writes || (record.fits && passed() > options.seconds)) break;
    }
    if (passed() > options.seconds) break;
  }
  if (!writes) {
    fmt::print(stderr, "{} cannot be written\n", options.full);
    return 1;
  }
  fmt::print("\n{}{} of {} points are measured, {} of them now in {:.1f} s\n", bench::table_of(table, points),
             table.done(points), points.size(), table.done(points) - done_before, passed());
  return table.next_group(points).empty() ? 0 : 2;
}

}  // namespace lorikeet::model
