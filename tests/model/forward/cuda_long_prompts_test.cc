// Prompts of many tokens over two GPUs, whose products run in parts beside the sums of others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "comm/collective/peer_collective.h"
#include "kernels/int4/base/decode_shape.h"
#include "model/forward/cuda_model.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"
#include "tests/model/forward/cuda_fixture.h"

namespace lorikeet::model {
namespace {

using ::testing::Each;

constexpr int kRanks = 2;
constexpr int32_t kTokens = 1300;
constexpr int32_t kBlocks = 96;

// The log-probabilities of a prompt's tokens, in one step. Ranks that share a device make nothing in parts, nor do those
// whose products cannot be made in some or whose sums are NCCL's.
Result<std::vector<float>> prompt_logprobs(const std::filesystem::path& directory, int rank, bool shares_device) {
  const auto checkpoint = tests::example_checkpoint().directory;
  const auto plan = tests::plan_of_ranks(checkpoint, kRanks);
  if (!plan) return tl::unexpected(plan.error());
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = options.max_model_len = kBlocks * options.block_size;
  options.shares_device = shares_device;
  const auto model = tests::load_rank(checkpoint, *plan, rank, options);
  if (!model) return tl::unexpected(model.error());
  comm::FileRendezvous store(directory);
  comm::NcclOptions nccl;
  nccl.rank = rank;
  nccl.size = kRanks;
  nccl.prefix = shares_device ? "at once" : "in parts";
  auto group = comm::make_device_collective(store, nccl, {});
  if (!group) return tl::unexpected(group.error());
  const bool parts = !shares_device && kernels::Int4DecodeDevice::current().groups &&
                     (*group)->takes_norm(kTokens, plan->config().hidden_size, kernels::Dtype::f16);
  const auto start = (*model)->start(kBlocks, std::shared_ptr<comm::DeviceCollective>(*std::move(group)));
  if (!start) return tl::unexpected(start.error());
  const tests::LongPrompt prompt(kTokens, kBlocks, plan->config().vocab_size);
  const BatchRow row = prompt.row();
  const int64_t before = (*model)->steps_in_parts();
  (*model)->begin_step({&row, 1});
  const std::vector<RowOutput> outputs = (*model)->finish_step();
  std::vector<float> logprobs = outputs[0].target_logprobs;
  logprobs.pop_back();  // nothing follows the last token
  const int64_t in_parts = (*model)->steps_in_parts() - before;
  if (in_parts != (parts ? 1 : 0)) return fail("{} steps ran in parts", in_parts);
  return logprobs;
}

std::string compare(const std::filesystem::path& directory, int rank) {
  if (const std::string trouble = comm::take_device(rank); !trouble.empty()) return trouble;
  try {
    const auto in_parts = prompt_logprobs(directory, rank, false);
    if (!in_parts) return in_parts.error().message;
    const auto at_once = prompt_logprobs(directory, rank, true);
    if (!at_once) return at_once.error().message;
    for (size_t i = 0; i < at_once->size(); i++) {
      if ((*in_parts)[i] != (*at_once)[i]) {
        return fmt::format("token {}: {} in parts, {} at once", i, (*in_parts)[i], (*at_once)[i]);
      }
    }
    return at_once->size() == kTokens - 1 ? "" : fmt::format("{} log-probabilities", at_once->size());
  } catch (const comm::CollectiveError& error) {
    return error.what();
  }
}

TEST(CudaLongPrompts, HaveTheSameBitsInPartsAsAtOnce) {
  const std::string devices = comm::run_processes(1, [](int) {
    const Result<int> count = kernels::device_count();
    return count ? std::to_string(*count) : count.error().message;
  })[0];
  if (std::atoi(devices.c_str()) < kRanks) GTEST_SKIP() << "devices: " << devices;
  const tests::TempDir directory;
  EXPECT_THAT(comm::run_processes(kRanks, [&](int rank) { return compare(directory.path(), rank); }), Each(""));
}

}  // namespace
}  // namespace lorikeet::model
