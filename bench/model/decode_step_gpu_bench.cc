// Whole steps of the 14B model on one device, or cut over several, without actors: decode steps of several batch sizes, without adapters,
// with distinct ones and with a mix that changes at every step, prompts, and both in the same steps. Weights are random. Two steps are in
// flight, as when the scheduler plans ahead, and every token feeds the next step on the device.
// Each figure stands beside its floor: the bytes that a step must read at the read bandwidth, or the operations of its products at cuBLASLt's
// rate where they take longer, both measured in the same run. One factor changes at a time from a default point: batches; adapters, with who
// applied them; draws; prompts; mixed: how far apart the tokens of 32 rows are while prompts arrive, by --max-num-batched-tokens; runs: steps of
// known tokens, several positions of each sequence. With --kernels it prints the kernels' times instead. With --tensor-parallel-size each rank is
// a process with a device of its own (or a share of one, where there are fewer); figures and floors are those of rank 0. --nccl: no peer memory.
// --alone: one of two ranks on one device, batches or adapters (bench/comm/lone_rank.h).
//   decode_step_gpu_bench [--only batches,adapters,draws,prompts,mixed,runs] [--rows N] [--context N] [--fp8]
//                         [--max-lora-rank N] [--kernels] [--shares-device] [--model DIR] [--steps N] [--tensor-parallel-size N] [--nccl] [--alone]
// --full: every batch at every context that fits, to 128k, with adapters, draws, keys and values in fp8, and prompts beside them, a slice of time
// at a call. Figures of slow steps are of fewer of them, 12 at least, and keys and values are those of 8,192 computed tokens again and again. STATE
// keeps the figures, and a call goes on where the one before it stopped. Ends with 0 when all are there, with 2: call again.
//   decode_step_gpu_bench --full STATE [--seconds 540] [--model DIR] [--steps N] [--max-lora-rank N]
#include <fmt/format.h>

#include <limits>
#include <memory>
#include <string>

#include "bench/comm/forked_ranks.h"
#include "bench/model/step_measures.h"
#include "bench/model/step_slices.h"
#include "tests/comm/collective/file_rendezvous.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kMixedRows = 32;  // that go on while prompts arrive

// One factor at a time.
void run_factors(const bench::StepBenchOptions& options, StepRunner& runner, StepMeasures& measures) {
  StepMeasures::print_decode_head();
  const auto decode = [&](int32_t rows, StepAdapters adapters, const Draw& draw) {
    if (rows <= options.rows) measures.decode(rows, adapters, draw);
  };
  const auto wanted = [&](const char* what) {
    return options.only.empty() || options.only.find(what) != std::string::npos;
  };
  if (wanted("batches")) {
    for (const int32_t rows : {1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 192, 256}) decode(rows, {}, {});
  }
  if (wanted("adapters")) {
    for (const int32_t rows : {1, 8, 32}) decode(rows, {1}, {});
    for (const int32_t rows : {8, 32, 64}) decode(rows, {rows}, {});
    decode(32, {32, true}, {});
  }
  if (wanted("draws")) {
    for (const int32_t rows : {1, 32, 64}) {
      for (const Draw& draw : draws()) decode(rows, {}, draw);
    }
  }
  if (wanted("prompts")) {
    for (const int32_t tokens : {StepRunner::kBlockSize, 512, StepRunner::kLongestPrompt}) measures.prompt(tokens, -1);
    for (const int32_t tokens : {StepRunner::kBlockSize, StepRunner::kLongestPrompt}) measures.prompt(tokens, 0);
  }
  if (wanted("runs")) {
    for (const int32_t count : {1, 8}) {
      for (const int32_t positions : {2, 4, kMostDecodePositions}) {
        if (count * positions <= options.rows) measures.again(count, positions);
      }
    }
  }
  if (wanted("mixed")) {
    StepMeasures::print_mixed_head();
    const int32_t rows = std::min(runner.rows(), kMixedRows);
    for (const int32_t budget : {0, 128, 256, 512, 1024, StepRunner::kLongestPrompt}) measures.mixed(rows, budget);
  }
}

int run(const bench::StepBenchOptions& options, int rank, comm::Rendezvous& store) {
  const auto used = kernels::use_device(rank % must(kernels::device_count()));
  CHECK(used) << used.error().message;
  // Records of the kernels are kept from before the first graph is captured.
  std::unique_ptr<bench::KernelTimes> times;
  if (options.kernels) times = std::make_unique<bench::KernelTimes>(must(bench::KernelTimes::make()));
  const bench::StepFloors floors = bench::measure_step_floors(must(kernels::Stream::make()));
  fmt::print("{} x {}: read {:.3f} TB/s (bulk copies), cuBLASLt fp16 {:.0f} TFLOP/s\n", options.ranks,
             kernels::device_properties().name, floors.read / 1e12, floors.flops / 1e12);
  if (!options.full.empty()) return run_slice(options, floors, store);
  StepRunner runner(options, rank, floors, store);
  runner.start(false);
  runner.warm_up(std::numeric_limits<double>::infinity());  // alike on all ranks
  StepMeasures measures(runner, {options.steps, options.steps}, {3 * options.steps, 3 * options.steps}, options.context,
                        times.get());
  run_factors(options, runner, measures);
  return 0;
}

}  // namespace
}  // namespace lorikeet::model

int main(int argc, char** argv) {
  const auto options = lorikeet::bench::parse_step_bench_options(argc, argv);
  if (!options) return 2;
  const lorikeet::tests::TempDir directory;
  int status = 0;
  const int ranks = lorikeet::bench::run_ranks(options->alone ? 1 : options->ranks, [&](int rank) {
    lorikeet::comm::FileRendezvous store(directory.path());
    status = lorikeet::model::run(*options, rank, store);
  });
  return ranks != 0 ? ranks : status;
}
