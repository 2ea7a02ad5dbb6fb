// The CPU model: tests/model/forward/decode_runs.h.
#include "tests/model/forward/decode_runs.h"

#include <gtest/gtest.h>

#include "comm/collective/group.h"
#include "tests/model/forward/golden_run.h"

namespace lorikeet::model {
namespace {

TEST(DecodeRuns, HaveTheBitsOfTokensThatWereComputedOneByOne) {
  const auto checkpoint = tests::example_checkpoint();
  const ShardPlan plan = ShardPlan::make(read_model_config(checkpoint.directory).value(), 1).value();
  RankModelOptions options;
  options.num_blocks = 128;
  options.num_slots = 4;
  const auto model = make_cpu_model(load_rank_weights(checkpoint.directory, plan, 0).value(), plan, options,
                                    std::move(comm::make_local_group(1)[0]))
                         .value();
  const tests::GoldenRun adapters(checkpoint, plan, 0, *model, options.num_blocks);  // slots 0, 1, 2
  for (const auto& runs : tests::kDecodeRuns) EXPECT_EQ(tests::differing_after_runs(*model, runs, [] {}), 0);
}

}  // namespace
}  // namespace lorikeet::model
