// What tests of the CUDA model share: a device or a skip, and one rank's model of a checkpoint.
#pragma once

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "model/forward/cuda_model.h"
#include "tests/model/forward/golden_run.h"

namespace lorikeet::tests {

// Every test has the device 0, or is skipped. Not for tests whose children use a device: a fork of a process that has
// used one cannot (tests/comm/collective/gpu_ranks.h).
class OnCuda : public testing::Test {
 protected:
  void SetUp() override {
    const Result<int> count = kernels::device_count();
    if (!count) GTEST_SKIP() << count.error().message;
    if (*count == 0) GTEST_SKIP() << "this host has no CUDA device";
    ASSERT_TRUE(kernels::use_device(0));
  }
};

inline Result<model::ShardPlan> plan_of_ranks(const std::filesystem::path& checkpoint, int ranks) {
  const auto config = model::read_model_config(checkpoint);
  if (!config) return tl::unexpected(config.error());
  return model::ShardPlan::make(*config, ranks);
}

// On the calling thread's device; not started.
inline Result<std::unique_ptr<model::CudaModel>> load_rank(const std::filesystem::path& checkpoint,
                                                           const model::ShardPlan& plan, int rank,
                                                           const model::CudaModelOptions& options) {
  const auto source = model::open_weights(checkpoint, plan, rank);
  if (!source) return tl::unexpected(source.error());
  return model::load_cuda_model(source->get(), plan, rank, options);
}

// Of a checkpoint that one rank has whole; what fails aborts the test.
inline model::ShardPlan plan_of(const GoldenCheckpoint& checkpoint) {
  auto plan = plan_of_ranks(checkpoint.directory, 1);
  CHECK(plan) << plan.error().message;
  return *std::move(plan);
}
inline std::unique_ptr<model::CudaModel> load_whole(const GoldenCheckpoint& checkpoint,
                                                    const model::CudaModelOptions& options) {
  auto model = load_rank(checkpoint.directory, plan_of(checkpoint), 0, options);
  CHECK(model) << model.error().message;
  return *std::move(model);
}
inline std::unique_ptr<model::CudaModel> start_whole(const GoldenCheckpoint& checkpoint,
                                                     const model::CudaModelOptions& options, int32_t blocks) {
  auto model = load_whole(checkpoint, options);
  const auto start = model->start(blocks, nullptr);
  CHECK(start) << start.error().message;
  return model;
}

// A prompt of one sequence, with the log-probability of each of its tokens.
struct LongPrompt {
  std::vector<int32_t> ids, targets, blocks;

  LongPrompt(int32_t tokens, int32_t num_blocks, int32_t vocab_size)
      : ids(static_cast<size_t>(tokens)), blocks(static_cast<size_t>(num_blocks)) {
    for (size_t i = 0; i < ids.size(); i++) ids[i] = static_cast<int32_t>(i * i % 251) % vocab_size;
    std::iota(blocks.begin(), blocks.end(), 0);
    targets.assign(ids.begin() + 1, ids.end());
    targets.push_back(-1);  // nothing follows the last token
  }

  model::BatchRow row() const {
    model::BatchRow row;
    row.token_ids = ids;
    row.logprob_targets = targets;
    row.prompt_size = static_cast<int32_t>(ids.size());
    row.block_table = blocks;
    return row;
  }
};

}  // namespace lorikeet::tests
