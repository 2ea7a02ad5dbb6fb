// A CUDA model that comes back: its KV cache in memory that outlives it, its graphs captured late. Needs a CUDA device.
#include <fcntl.h>
#include <glog/logging.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "kernels/peer/peer_memory.h"
#include "model/forward/cuda_model.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/cuda_sequences.h"
#include "tests/model/forward/golden_run.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;

constexpr int32_t kBlocks = 64;

class ResidentDeviceKvTest : public tests::OnCuda {
 protected:
  static std::unique_ptr<CudaModel> load() {
    CudaModelOptions options;
    options.max_num_seqs = 8;
    options.max_num_batched_tokens = 64;
    options.max_model_len = 256;
    options.dtype = Dtype::f16;
    return tests::load_whole(tests::example_checkpoint(), options);
  }

  static std::vector<int32_t> prompt() {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 30; ++i) ids.push_back((37 * i + 11) % 2000);
    return ids;
  }

  static tests::TestSequence undisturbed(int steps) {
    const auto model = load();
    CHECK(model->start(kBlocks, nullptr));
    tests::TestSequence sequence(prompt(), 3);
    tests::steps_alone(*model, sequence, steps);
    return sequence;
  }
};

TEST_F(ResidentDeviceKvTest, HoldsForTheNextModelWhatTheLastOneHasComputed) {
  const tests::TestSequence expected = undisturbed(30);
  tests::TestSequence sequence(prompt(), 3);
  Descriptor kept;
  uint64_t bytes = 0;
  {
    const auto model = load();
    bytes = model->kv_block_bytes() * kBlocks;
    auto memory = std::make_shared<kernels::PeerMemory>(kernels::PeerMemory::make(bytes).value());
    kept = memory->share().value();
    ASSERT_TRUE(model->start(kBlocks, nullptr, {std::move(memory), false}, true));
    tests::steps_alone(*model, sequence, 10);
  }
  for (int i = 0; i < 2; ++i) {
    const auto model = load();
    auto memory = std::make_shared<kernels::PeerMemory>(kernels::PeerMemory::attach(kept, bytes).value());
    ASSERT_TRUE(model->start(kBlocks, nullptr, {std::move(memory), true}, false));
    tests::steps_alone(*model, sequence, 10);
    EXPECT_GE(model->graph_replays(), 9) << "from the first step of their class on";
  }
  EXPECT_EQ(tests::differing(sequence, expected), 0);
}

TEST_F(ResidentDeviceKvTest, StaysOverAResetAndGraphsAreCapturedAsTheyAreNeeded) {
  const tests::TestSequence expected = undisturbed(30);
  const auto model = load();
  ASSERT_TRUE(model->start(kBlocks, nullptr));
  tests::TestSequence sequence(prompt(), 3);
  tests::steps_alone(*model, sequence, 10);
  const int64_t captured = model->graphs_captured();
  ASSERT_TRUE(model->reset(nullptr, /*capture_all=*/false));
  EXPECT_EQ(model->graphs_captured(), captured + 1);
  tests::steps_alone(*model, sequence, 10);
  std::vector<tests::TestSequence> others;
  for (int32_t i = 0; i < 4; ++i) others.emplace_back(prompt(), 20 + 4 * i);
  std::vector<tests::TestSequence*> all;
  for (tests::TestSequence& other : others) {
    tests::steps_alone(*model, other, 1);  // the prompts, 64 tokens at the most
    all.push_back(&other);
  }
  for (int i = 0; i < 5; ++i) tests::step(*model, all);
  EXPECT_EQ(model->graphs_captured(), captured + 2) << "of one class more";
  tests::steps_alone(*model, sequence, 10);
  EXPECT_EQ(tests::differing(sequence, expected), 0);
  tests::TestSequence first_six = undisturbed(6);
  for (const tests::TestSequence& other : others) EXPECT_EQ(tests::differing(other, first_six), 0);
}

}  // namespace
}  // namespace lorikeet::model
