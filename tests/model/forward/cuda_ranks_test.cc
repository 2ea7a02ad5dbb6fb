// The CUDA model on several ranks, which are processes that share the GPUs of this host; NCCL takes several ranks on
// one GPU only where it believes them on different hosts (NCCL_HOSTID). This process itself stays off the GPU, since a
// forked child could not use it then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <numeric>

#include "comm/collective/peer_collective.h"
#include "model/forward/cuda_model.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"
#include "tests/model/forward/golden_run.h"
#include "tests/model/forward/two_shot_group.h"
#include "tests/tolerance.h"

namespace lorikeet::model {
namespace {

using comm::take_device;
using kernels::Dtype;
using ::testing::Each;

constexpr int32_t kBlocks = 64;

// Sums of floats over the ranks, through the device.
tests::AddOverRanks add_over(comm::DeviceCollective& group) {
  return [&group](std::vector<float>& values) {
    const auto stream = kernels::Stream::make();
    const auto event = kernels::Event::make();
    const auto buffer = kernels::DeviceBuffer::allocate(values.size() * sizeof(float), "a test");
    CHECK(stream && event && buffer);
    kernels::copy_to_device(buffer->data(), values.data(), buffer->bytes(), *stream);
    group.all_reduce(buffer->data(), values.size(), Dtype::f32, *stream);
    kernels::copy_to_host(values.data(), buffer->data(), buffer->bytes(), *stream);
    event->record(*stream);
    group.wait(*event);
  };
}

// Small enough for every checkpoint here.
CudaModelOptions options_of(int size, Dtype dtype) {
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 512;
  options.dtype = dtype;
  options.kv_dtype = dtype == Dtype::f16 ? kernels::KvDtype::f16 : kernels::KvDtype::bf16;
  options.num_slots = 4;
  options.shares_device = kernels::device_count().value() < size;
  return options;
}

Result<std::shared_ptr<comm::DeviceCollective>> join(const std::filesystem::path& directory, const std::string& name,
                                                     int rank, int size, bool shares_device) {
  comm::FileRendezvous store(directory);
  comm::NcclOptions nccl;
  nccl.rank = rank;
  nccl.size = size;
  nccl.prefix = name;
  comm::PeerOptions peers;
  peers.shares_device = shares_device;
  auto group = comm::make_device_collective(store, nccl, peers);
  if (!group) return tl::unexpected(group.error());
  return std::shared_ptr<comm::DeviceCollective>(*std::move(group));
}

// One rank's answers to all cases: where they differ from the reference.
std::string run_rank(const std::filesystem::path& directory, const tests::GoldenCheckpoint& checkpoint, int rank,
                     int size, Dtype dtype, bool in_two_shots, double tolerance) {
  if (const std::string trouble = take_device(rank); !trouble.empty()) return trouble;
  const auto config = read_model_config(checkpoint.directory);
  if (!config) return config.error().message;
  const auto plan = ShardPlan::make(*config, size);
  if (!plan) return plan.error().message;
  const auto source = open_weights(checkpoint.directory, *plan, rank);
  if (!source) return source.error().message;
  const CudaModelOptions options = options_of(size, dtype);
  const auto model = load_cuda_model(source->get(), *plan, rank, options);
  if (!model) return model.error().message;
  auto group = join(directory, "ranks", rank, size, options.shares_device);
  if (!group) return group.error().message;
  const auto two_shots = in_two_shots ? std::make_shared<tests::TwoShotGroup>(*group) : nullptr;
  const std::shared_ptr<comm::DeviceCollective> shared = in_two_shots ? two_shots : *group;
  try {
    if (const auto start = (*model)->start(kBlocks, shared); !start) return start.error().message;
    tests::GoldenRun run(checkpoint, *plan, rank, **model, kBlocks, add_over(*shared));
    const std::string differences = run.differences(tolerance);
    if (in_two_shots && two_shots->sums_in_two_shots() == 0) return "no sum was made in two shots";
    return differences;
  } catch (const comm::CollectiveError& error) {
    return error.what();
  }
}

// The log-probabilities of a prompt's tokens and the tokens that follow it, over a group of its own.
Result<std::vector<float>> answers(const std::filesystem::path& directory, const std::string& name, int rank, int size,
                                   bool in_two_shots) {
  constexpr int32_t kPrompt = 150;
  constexpr int32_t kSteps = 6;
  const tests::GoldenCheckpoint checkpoint = tests::example_checkpoint();
  const auto config = read_model_config(checkpoint.directory);
  if (!config) return tl::unexpected(config.error());
  const auto plan = ShardPlan::make(*config, size);
  if (!plan) return tl::unexpected(plan.error());
  const auto source = open_weights(checkpoint.directory, *plan, rank);
  if (!source) return tl::unexpected(source.error());
  const CudaModelOptions options = options_of(size, Dtype::f16);
  const auto model = load_cuda_model(source->get(), *plan, rank, options);
  if (!model) return tl::unexpected(model.error());
  auto group = join(directory, name, rank, size, options.shares_device);
  if (!group) return tl::unexpected(group.error());
  if (in_two_shots) *group = std::make_shared<tests::TwoShotGroup>(*group);
  if (const auto start = (*model)->start(kBlocks, *group); !start) return tl::unexpected(start.error());
  std::vector<int32_t> ids(kPrompt), blocks(kBlocks);
  for (size_t i = 0; i < ids.size(); i++) ids[i] = static_cast<int32_t>(i * i % 251) % config->vocab_size;
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<int32_t> targets(ids.begin() + 1, ids.end());
  targets.push_back(-1);
  BatchRow row;
  row.token_ids = ids;
  row.logprob_targets = targets;
  row.prompt_size = kPrompt;
  row.block_table = blocks;
  row.sample = true;
  row.sampling.temperature = 0;
  (*model)->begin_step({&row, 1});
  RowOutput output = (*model)->finish_step()[0];
  std::vector<float> all = output.target_logprobs;
  all.pop_back();  // nothing follows the last token
  row.logprob_targets = {};
  for (int32_t i = 0; i < kSteps; i++) {
    all.push_back(static_cast<float>(output.token_id));
    row.start = kPrompt + i;
    row.token_ids = {&output.token_id, 1};
    (*model)->begin_step({&row, 1});
    output = (*model)->finish_step()[0];
  }
  return all;
}

class CudaRanks : public testing::TestWithParam<std::tuple<std::string, int, Dtype, bool>> {
 protected:
  void SetUp() override {
    const std::string trouble = comm::run_processes(1, take_device)[0];
    if (!trouble.empty()) GTEST_SKIP() << trouble;
  }
};

TEST_P(CudaRanks, AgreeWithTheReference) {
  const auto& [name, size, dtype, in_two_shots] = GetParam();
  const bool example = name == "example";
  const auto checkpoint = example ? tests::example_checkpoint() : tests::format_checkpoint(name);
  const double tolerance = dtype == Dtype::f16
                               ? (example ? tests::kHalfLogprobTolerance : tests::kHalfFormatLogprobTolerance)
                               : tests::kBfloat16LogprobTolerance;
  const tests::TempDir directory;
  const Dtype type = dtype;
  const int ranks = size;
  const bool two_shots = in_two_shots;
  EXPECT_THAT(
      comm::run_processes(
          ranks,
          [&](int rank) { return run_rank(directory.path(), checkpoint, rank, ranks, type, two_shots, tolerance); }),
      Each(""));
}

std::vector<std::tuple<std::string, int, Dtype, bool>> groups() {
  std::vector<std::tuple<std::string, int, Dtype, bool>> made = {
      {"example", 2, Dtype::f16, false}, {"example", 4, Dtype::f16, false}, {"example", 2, Dtype::bf16, false},
      {"example", 2, Dtype::f16, true},  {"example", 4, Dtype::f16, true},  {"example", 4, Dtype::bf16, true}};
  for (const std::string& name : tests::format_names()) made.emplace_back(name, 2, Dtype::f16, false);
  return made;
}

INSTANTIATE_TEST_SUITE_P(Groups, CudaRanks, testing::ValuesIn(groups()), [](const auto& group) {
  return tests::test_name_of(fmt::format("{}_tp{}_{}{}", std::get<0>(group.param), std::get<1>(group.param),
                                         name_of(std::get<2>(group.param)),
                                         std::get<3>(group.param) ? "_in_two_shots" : ""));
});

TEST(CudaTwoShots, HaveTheBitsOfOneShotOnEveryRankAndInEveryRun) {
  constexpr int kRanks = 4;
  if (const std::string trouble = comm::run_processes(1, take_device)[0]; !trouble.empty()) GTEST_SKIP() << trouble;
  const tests::TempDir directory;
  const std::vector<std::string> reports = comm::run_processes(kRanks, [&](int rank) -> std::string {
    if (const std::string trouble = take_device(rank); !trouble.empty()) return trouble;
    try {
      const auto one = answers(directory.path(), "one shot", rank, kRanks, false);
      if (!one) return one.error().message;
      for (const char* name : {"two shots", "two shots again"}) {
        const auto two = answers(directory.path(), name, rank, kRanks, true);
        if (!two) return two.error().message;
        if (*two != *one) return fmt::format("rank {}: other bits in {}", rank, name);
      }
      std::string bits = "bits";
      for (const float value : *one) bits += fmt::format(" {:x}", std::bit_cast<uint32_t>(value));
      return bits;
    } catch (const comm::CollectiveError& error) {
      return error.what();
    }
  });
  EXPECT_THAT(reports[0], testing::StartsWith("bits "));
  EXPECT_THAT(reports, Each(reports[0]));
}

}  // namespace
}  // namespace lorikeet::model
