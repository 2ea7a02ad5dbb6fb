// The CUDA model on several ranks, which are processes that share the GPUs of this host; NCCL takes several ranks on
// one GPU only where it believes them on different hosts (NCCL_HOSTID). This process itself stays off the GPU, since a
// forked child could not use it then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "comm/collective/peer_collective.h"
#include "model/forward/cuda_model.h"
#include "tests/comm/collective/file_rendezvous.h"
#include "tests/comm/collective/gpu_ranks.h"
#include "tests/comm/collective/processes.h"
#include "tests/model/forward/golden_run.h"
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

// One rank's answers to all cases: where they differ from the reference.
std::string run_rank(const std::filesystem::path& directory, const tests::GoldenCheckpoint& checkpoint, int rank,
                     int size, Dtype dtype, double tolerance) {
  if (const std::string trouble = take_device(rank); !trouble.empty()) return trouble;
  const auto config = read_model_config(checkpoint.directory);
  if (!config) return config.error().message;
  const auto plan = ShardPlan::make(*config, size);
  if (!plan) return plan.error().message;
  const auto source = open_weights(checkpoint.directory, *plan, rank);
  if (!source) return source.error().message;
  CudaModelOptions options;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 256;
  options.max_model_len = 512;
  options.dtype = dtype;
  options.kv_dtype = dtype == Dtype::f16 ? kernels::KvDtype::f16 : kernels::KvDtype::bf16;
  options.num_slots = 4;
  options.shares_device = kernels::device_count().value() < size;
  const auto model = load_cuda_model(source->get(), *plan, rank, options);
  if (!model) return model.error().message;
  comm::FileRendezvous store(directory);
  comm::NcclOptions nccl;
  nccl.rank = rank;
  nccl.size = size;
  nccl.prefix = "ranks";
  comm::PeerOptions peers;
  peers.shares_device = options.shares_device;
  auto group = comm::make_device_collective(store, nccl, peers);
  if (!group) return group.error().message;
  const std::shared_ptr<comm::DeviceCollective> shared = *std::move(group);
  try {
    if (const auto start = (*model)->start(kBlocks, shared); !start) return start.error().message;
    tests::GoldenRun run(checkpoint, *plan, rank, **model, kBlocks, add_over(*shared));
    return run.differences(tolerance);
  } catch (const comm::CollectiveError& error) {
    return error.what();
  }
}

class CudaRanks : public testing::TestWithParam<std::tuple<std::string, int, Dtype>> {
 protected:
  void SetUp() override {
    const std::string trouble = comm::run_processes(1, take_device)[0];
    if (!trouble.empty()) GTEST_SKIP() << trouble;
  }
};

TEST_P(CudaRanks, AgreeWithTheReference) {
  const auto& [name, size, dtype] = GetParam();
  const bool example = name == "example";
  const auto checkpoint = example ? tests::example_checkpoint() : tests::format_checkpoint(name);
  const double tolerance = dtype == Dtype::f16
                               ? (example ? tests::kHalfLogprobTolerance : tests::kHalfFormatLogprobTolerance)
                               : tests::kBfloat16LogprobTolerance;
  const comm::TemporaryDirectory directory;
  const Dtype type = dtype;
  const int ranks = size;
  EXPECT_THAT(
      comm::run_processes(
          ranks, [&](int rank) { return run_rank(directory.path(), checkpoint, rank, ranks, type, tolerance); }),
      Each(""));
}

std::vector<std::tuple<std::string, int, Dtype>> groups() {
  std::vector<std::tuple<std::string, int, Dtype>> made = {
      {"example", 2, Dtype::f16}, {"example", 4, Dtype::f16}, {"example", 2, Dtype::bf16}};
  for (const std::string& name : tests::format_names()) made.emplace_back(name, 2, Dtype::f16);
  return made;
}

INSTANTIATE_TEST_SUITE_P(Groups, CudaRanks, testing::ValuesIn(groups()), [](const auto& group) {
  return tests::test_name_of(
      fmt::format("{}_tp{}_{}", std::get<0>(group.param), std::get<1>(group.param), name_of(std::get<2>(group.param))));
});

}  // namespace
}  // namespace lorikeet::model
