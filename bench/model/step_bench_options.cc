#include "bench/model/step_bench_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

namespace lorikeet::bench {

std::optional<StepBenchOptions> parse_step_bench_options(int argc, char** argv) {
  StepBenchOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (flag == "--kernels") {
      options.kernels = true;
    } else if (flag == "--shares-device") {
      options.shares_device = true;
    } else if (flag == "--model" && value != nullptr) {
      options.model = argv[++i];
    } else if (flag == "--steps" && value != nullptr) {
      options.steps = std::max(1, std::atoi(argv[++i]));
    } else if (flag == "--context" && value != nullptr) {
      options.context = std::clamp(std::atoi(argv[++i]), 1, 131072);
    } else if (flag == "--rows" && value != nullptr) {
      options.rows = std::clamp(std::atoi(argv[++i]), 1, 1024);
    } else if (flag == "--max-lora-rank" && value != nullptr) {
      options.lora_rank = std::max(16, std::atoi(argv[++i]));
    } else if (flag == "--only" && value != nullptr) {
      options.only = argv[++i];
    } else if (flag == "--tensor-parallel-size" && value != nullptr) {
      options.ranks = std::clamp(std::atoi(argv[++i]), 1, 8);
    } else if (flag == "--full" && value != nullptr) {
      options.full = argv[++i];
    } else if (flag == "--seconds" && value != nullptr) {
      options.seconds = std::max(0.0, std::atof(argv[++i]));
    } else if (flag == "--nccl") {
      options.peers = false;
    } else if (flag == "--alone") {
      options.alone = true;
    } else if (flag == "--fp8") {
      options.fp8 = true;
    } else {
      fmt::print(
          stderr,
          "usage: decode_step_gpu_bench [--only batches,adapters,draws,prompts,mixed,runs] [--rows N] [--context N] "
          "[--fp8]\n"
          "       [--max-lora-rank N] [--kernels] [--shares-device] [--model DIR] [--steps N]\n"
          "       [--tensor-parallel-size N] [--nccl] [--alone --only batches|adapters]\n"
          "       decode_step_gpu_bench --full STATE [--seconds 540] [--model DIR] [--steps N] [--max-lora-rank N]\n");
      return std::nullopt;
    }
  }
  if (!options.full.empty() && (options.ranks > 1 || options.alone)) {
    fmt::print(stderr, "--full is of one device: without --tensor-parallel-size\n");
    return std::nullopt;
  }
  if (options.alone) {
    if (options.only != "batches" && options.only != "adapters") {
      fmt::print(stderr, "--alone is of --only batches or adapters\n");
      return std::nullopt;
    }
    options.ranks = 2;
  }
  return options;
}

}  // namespace lorikeet::bench
