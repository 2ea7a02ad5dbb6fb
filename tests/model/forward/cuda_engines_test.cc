// Whole engines that know nothing of each other on one device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/forward/cuda_model.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"
#include "tests/model/forward/golden_run.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kBlocks = 64;

// An engine's answers to all cases: where they differ from the reference.
std::string run_engine() {
  if (const std::string trouble = comm::take_device(0); !trouble.empty()) return trouble;
  const tests::GoldenCheckpoint checkpoint = tests::example_checkpoint();
  const auto config = read_model_config(checkpoint.directory);
  if (!config) return config.error().message;
  const auto plan = ShardPlan::make(*config, 1);
  if (!plan) return plan.error().message;
  const auto source = open_weights(checkpoint.directory, *plan, 0);
  if (!source) return source.error().message;
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 512;
  options.num_slots = 4;
  const auto model = load_cuda_model(source->get(), *plan, 0, options);
  if (!model) return model.error().message;
  if (const auto start = (*model)->start(kBlocks, nullptr); !start) return start.error().message;
  tests::GoldenRun run(checkpoint, *plan, 0, **model, kBlocks);
  return run.differences(tests::kHalfLogprobTolerance);
}

// The multi-process service, where it is on, lets them run side by side: their kernels must not wait for blocks that the
// other keeps off the device.
TEST(CudaEngines, WithAdaptersShareADevice) {
  const std::string trouble = comm::run_processes(1, comm::take_device)[0];
  if (!trouble.empty()) GTEST_SKIP() << trouble;
  EXPECT_THAT(comm::run_processes(2, [](int) { return run_engine(); }), ::testing::Each(""));
}

}  // namespace
}  // namespace lorikeet::model
