// The figures of decode_step_gpu_bench, each measured and printed beside its floor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/model/kernel_times.h"
#include "bench/model/step_runner.h"

namespace lorikeet::model {

// Of decode steps. Milliseconds; tokens a second.
struct StepFigures {
  double ms = 0, gpu_ms = 0, floor_ms = 0;
  double p99_ms = 0;  // of the gaps between the tokens of a row
  double tokens_per_second = 0;
};

class StepMeasures {
 public:
  // decode: the steps of each figure; mixed: of those with prompts, beside two whole prompts. times: or null; with them
  // the kernels' times are printed instead of figures.
  StepMeasures(StepRunner& runner, bench::StepPace decode, bench::StepPace mixed, int32_t context,
               bench::KernelTimes* times)
      : runner_(runner), decode_(decode), mixed_(mixed), context_(context), times_(times) {}

  static void print_decode_head();
  // Decode steps of `rows` sequences, of which there must be so many.
  StepFigures decode(int32_t rows, StepAdapters adapters, const Draw& draw);

  // The last positions of the sequences' prompts computed again, as decode rows and as prompts are.
  void again(int32_t count, int32_t positions);

  static void print_mixed_head();
  // Steps of at most `budget` tokens: rows that go on, and as much as there is room for of prompts that arrive one after
  // the other, the next when the one before has been computed. 0: no prompts. Figures are those of the rows.
  StepFigures mixed(int32_t rows, int32_t budget);

  // A prompt alone. slot: of its adapter; -1: none.
  void prompt(int32_t tokens, int32_t slot);

 private:
  void print_kernels(const std::string& name, int steps);

  StepRunner& runner_;
  const bench::StepPace decode_, mixed_;
  const int32_t context_;
  bench::KernelTimes* const times_;
};

}  // namespace lorikeet::model
