// The CUDA model: tests/model/forward/decode_runs.h. Needs a CUDA device.
#include <glog/logging.h>
#include <gtest/gtest.h>

#include "model/forward/cuda_model.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/decode_runs.h"
#include "tests/model/forward/golden_run.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;
using kernels::KvDtype;

// Of differing_after_runs, before the step of several positions: 11 tokens behind the first one of each sequence, and the
// prompt of a single token, which is computed twice.
constexpr int64_t kReplaysOneByOne = 4 * 11 + 2;

class DecodeRunsOnCuda : public tests::OnCuda, public testing::WithParamInterface<std::tuple<Dtype, KvDtype>> {
 protected:
  static std::unique_ptr<CudaModel> started(const tests::GoldenCheckpoint& checkpoint, int32_t max_num_seqs) {
    CudaModelOptions options;
    options.max_num_seqs = max_num_seqs;
    options.max_num_batched_tokens = 256;
    options.max_model_len = 256;
    std::tie(options.dtype, options.kv_dtype) = GetParam();
    options.num_slots = 4;
    return tests::start_whole(checkpoint, options, 128);
  }
};

TEST_P(DecodeRunsOnCuda, AreReplaysWithTheBitsOfTokensThatWereComputedOneByOne) {
  const auto checkpoint = tests::example_checkpoint();
  const ShardPlan plan = tests::plan_of(checkpoint);
  const auto model = started(checkpoint, 32);
  const tests::GoldenRun adapters(checkpoint, plan, 0, *model, 128);  // slots 0, 1, 2
  const int64_t captured = model->graphs_captured();
  for (const auto& runs : tests::kDecodeRuns) {
    int64_t replays = 0;
    const int64_t before = model->graph_replays();
    EXPECT_EQ(tests::differing_after_runs(*model, runs, [&] { replays = model->graph_replays() - before; }), 0);
    EXPECT_EQ(replays, kReplaysOneByOne + 1) << "every step but those of the prompts";
  }
  EXPECT_EQ(model->graphs_captured(), captured);
}

// With fewer rows than positions some of them are computed as prompts are: near enough for the same greedy tokens, but
// not of the same bits.
TEST_P(DecodeRunsOnCuda, AreComputedAsPromptsWhereAStepHasTooManyPositions) {
  const auto checkpoint = tests::example_checkpoint();
  const ShardPlan plan = tests::plan_of(checkpoint);
  const auto model = started(checkpoint, 12);
  const tests::GoldenRun adapters(checkpoint, plan, 0, *model, 128);
  const int64_t before = model->graph_replays();
  int64_t replays = 0;
  tests::differing_after_runs(*model, tests::kDecodeRuns[0], [&] { replays = model->graph_replays() - before; });
  EXPECT_EQ(replays, kReplaysOneByOne);
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeRunsOnCuda,
                         testing::Values(std::tuple(Dtype::f16, KvDtype::f16), std::tuple(Dtype::bf16, KvDtype::bf16),
                                         std::tuple(Dtype::f16, KvDtype::f8_e4m3)),
                         [](const auto& types) {
                           return std::string(name_of(std::get<0>(types.param))) + "With" +
                                  std::string(name_of(std::get<1>(types.param)));
                         });

}  // namespace
}  // namespace lorikeet::model
