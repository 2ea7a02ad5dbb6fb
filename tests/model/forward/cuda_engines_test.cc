// Whole engines that know nothing of each other on one device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "model/forward/cuda_model.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/golden_run.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kBlocks = 64;

constexpr int kEngines = 2;

// An engine's answers to all cases, which it gives again until so much time has passed: where they differ from the
// reference. All engines have their models before one of them answers.
std::string run_engine(const std::filesystem::path& directory, int engine, std::chrono::seconds time) {
  if (const std::string trouble = comm::take_device(0); !trouble.empty()) return trouble;
  const tests::GoldenCheckpoint checkpoint = tests::example_checkpoint();
  const auto plan = tests::plan_of_ranks(checkpoint.directory, 1);
  if (!plan) return plan.error().message;
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 512;
  options.num_slots = 4;
  const auto model = tests::load_rank(checkpoint.directory, *plan, 0, options);
  if (!model) return model.error().message;
  if (const auto start = (*model)->start(kBlocks, nullptr); !start) return start.error().message;
  tests::GoldenRun run(checkpoint, *plan, 0, **model, kBlocks);
  comm::FileRendezvous others(directory);
  others.set(std::to_string(engine), {1});
  for (int other = 0; other < kEngines; ++other) others.get(std::to_string(other), std::chrono::minutes(2));
  const auto until = std::chrono::steady_clock::now() + time;
  do {
    const std::string differences = run.differences(tests::kHalfLogprobTolerance);
    if (!differences.empty()) return differences;
  } while (std::chrono::steady_clock::now() < until);
  const CudaModel::LoraSteps steps = (*model)->lora_steps();
  if (steps.fused + steps.apart == 0) return "no step had an adapter";
  // Blocks that wait for each other could be kept off the device by the other engine.
  if (kernels::device_properties().multi_process_service && steps.fused > 0) return "products applied adapters";
  return "";
}

std::vector<std::string> run_engines(std::chrono::seconds time) {
  const tests::TempDir directory;
  return comm::run_processes(kEngines, [&](int engine) { return run_engine(directory.path(), engine, time); });
}

// The multi-process service, where it is on, lets them run side by side: their kernels must not wait for blocks that the
// other keeps off the device.
TEST(CudaEngines, WithAdaptersShareADevice) {
  if (!comm::no_device().empty()) GTEST_SKIP() << comm::no_device();
  EXPECT_THAT(run_engines(std::chrono::seconds(0)), ::testing::Each(""));
}

TEST(CudaEngines, WithAdaptersComputeForAMinuteUnderTheMultiProcessService) {
  if (std::getenv("LORIKEET_FULL") == nullptr) GTEST_SKIP() << "takes a minute: tests/gpu.sh engines";
  const auto service = [](int) -> std::string {
    if (const std::string trouble = comm::take_device(0); !trouble.empty()) return trouble;
    return kernels::device_properties().multi_process_service ? "" : "the multi-process service is not on";
  };
  const std::string trouble = comm::run_processes(1, service)[0];
  if (!trouble.empty()) GTEST_SKIP() << trouble;
  EXPECT_THAT(run_engines(std::chrono::minutes(1)), ::testing::Each(""));
}

}  // namespace
}  // namespace lorikeet::model
