// What decode_step_gpu_bench is asked for.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

namespace lorikeet::bench {

// How many steps a figure is made of: `most`, or fewer where they are slow, but `least` in any case.
struct StepPace {
  int least = 0;
  int most = 0;
  double seconds = std::numeric_limits<double>::infinity();

  constexpr bool goes_on(int done, double passed) const { return done < least || (done < most && passed < seconds); }
};

struct StepBenchOptions {
  bool kernels = false;
  bool shares_device = false;
  bool fp8 = false;         // keys and values
  std::string only;         // of batches, adapters, draws, prompts, mixed and runs, by commas; empty: all
  int32_t rows = 256;       // the largest batch
  int32_t lora_rank = 512;  // --max-lora-rank: the server's default
  std::string model = LORIKEET_SOURCE_DIR "/examples/configs/qwen2.5-14b-int4";
  int steps = 48;  // of a figure
  int32_t context = 512;
  int ranks = 1;
  bool peers = true;     // sums over each other's memory
  bool alone = false;    // one of two ranks, without the other
  bool adapters = true;  // in their slots
  std::string full;      // the file of --full; empty: one factor at a time
  double seconds = 540;  // of a slice of it
};

// Nothing, and the usage on standard error, for flags that there are not.
std::optional<StepBenchOptions> parse_step_bench_options(int argc, char** argv);

}  // namespace lorikeet::bench
