// Device weights in memory that outlives what made it. Needs a CUDA device.
#include "model/forward/resident_device_weights.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/peer/peer_memory.h"
#include "model/forward/cuda_model.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/golden_run.h"

namespace lorikeet::model {
namespace {

using kernels::Dtype;
using ::testing::HasSubstr;

Descriptor copy_of(const Descriptor& descriptor) {
  return Descriptor(fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3));
}

class ResidentDeviceWeightsTest : public tests::OnCuda {
 protected:
  void SetUp() override {
    OnCuda::SetUp();
    if (IsSkipped()) return;
    plan_ = tests::plan_of(checkpoint_);
    options_.max_num_seqs = 4;
    options_.max_num_batched_tokens = 64;
    options_.max_model_len = 128;
    options_.num_slots = 0;
    options_.dtype = Dtype::f16;
    source_ = open_weights(checkpoint_.directory, *plan_, 0).value();
  }

  DeviceWeights loaded() const { return put_weights_on_device(source_.get(), *plan_, 0, options_).value(); }

  // What is held once the process that made it has ended.
  ResidentDeviceWeights left() const {
    DeviceWeights weights = loaded();
    auto resident = make_resident(weights, *plan_, 0, options_.dtype, "o");
    CHECK(resident) << resident.error().message;
    return *std::move(resident);
  }

  Result<DeviceWeights> attached(const ResidentDeviceWeights& resident, const std::string& origin = "o",
                                 Dtype dtype = Dtype::f16) const {
    std::vector<Descriptor> regions;
    for (const DeviceRegion& region : resident.regions) regions.push_back(copy_of(region.memory));
    return attach_device_weights(resident.contents, regions, *plan_, 0, dtype, origin);
  }

  // Greedy tokens after a prompt.
  std::vector<int32_t> tokens_of(DeviceWeights weights) const {
    auto made = make_cuda_model(std::move(weights), *plan_, 0, options_);
    CHECK(made) << made.error().message;
    CHECK((*made)->start(16, nullptr));
    const std::array<int32_t, 4> blocks = {3, 1, 2, 5};
    std::vector<int32_t> prompt = {11, 42, 7, 300, 12}, tokens;
    for (int32_t start = 0; tokens.size() < 20;) {
      BatchRow row;
      row.token_ids = prompt;
      row.prompt_size = 5;
      row.start = start;
      row.block_table = blocks;
      row.sample = true;
      row.sampling.temperature = 0;
      (*made)->begin_step({&row, 1});
      start += static_cast<int32_t>(prompt.size());
      tokens.push_back((*made)->finish_step().front().token_id);
      prompt = {tokens.back()};
    }
    return tokens;
  }

  const tests::GoldenCheckpoint checkpoint_ = tests::example_checkpoint();
  std::optional<ShardPlan> plan_;
  CudaModelOptions options_;
  std::unique_ptr<WeightSource> source_;
};

TEST_F(ResidentDeviceWeightsTest, GiveTheSameTokensWhereverTheyLie) {
  const std::vector<int32_t> expected = tokens_of(loaded());
  DeviceWeights moved = loaded();
  const uint64_t bytes = moved.bytes();
  const auto resident = make_resident(moved, *plan_, 0, options_.dtype, "o");
  ASSERT_TRUE(resident) << resident.error().message;
  EXPECT_EQ(moved.bytes(), bytes);
  EXPECT_EQ(tokens_of(std::move(moved)), expected) << "where they were moved";
  for (int i = 0; i < 2; ++i) {
    auto weights = attached(*resident);
    ASSERT_TRUE(weights) << weights.error().message;
    EXPECT_EQ(weights->bytes(), bytes);
    EXPECT_EQ(tokens_of(*std::move(weights)), expected) << "a successor, " << i;
  }
}

TEST_F(ResidentDeviceWeightsTest, ReadNoByteOfTheCheckpoint) {
  const ResidentDeviceWeights resident = left();
  source_.reset();
  EXPECT_TRUE(attached(resident));
}

TEST_F(ResidentDeviceWeightsTest, AreFreedWithTheirLastDescriptor) {
  const uint64_t before = kernels::device_memory().free_bytes;
  for (int i = 0; i < 3; ++i) {
    ResidentDeviceWeights resident = left();
    EXPECT_TRUE(attached(resident));
    EXPECT_LT(kernels::device_memory().free_bytes, before);
  }
  EXPECT_GE(kernels::device_memory().free_bytes, before - (64ULL << 20)) << "but for what the driver keeps";
}

TEST_F(ResidentDeviceWeightsTest, AreRefusedByWhomTheyAreNotFor) {
  const ResidentDeviceWeights resident = left();
  EXPECT_THAT(attached(resident, "p").error().message, HasSubstr("their origin is o, not p"));
  EXPECT_THAT(attached(resident, "o", Dtype::bf16).error().message, HasSubstr("their dtype is F16, not BF16"));
  const auto none = attach_device_weights(resident.contents, {}, *plan_, 0, Dtype::f16, "o");
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("0 regions of memory were left, not 1"));
}

TEST_F(ResidentDeviceWeightsTest, AreRefusedWhereTwoOfThemAreSaidToBeAtOnePlace) {
  ResidentDeviceWeights resident = left();
  ASSERT_EQ(resident.regions.size(), 1U);
  std::vector<uint8_t> image(resident.contents.bytes().begin(), resident.contents.bytes().end());
  uint64_t header = 0;
  std::memcpy(&header, image.data(), sizeof header);
  // Of the numbers: how many regions, the region's size and digest, then size, region and offset of the embedding, of
  // lm_head and of the last norm.
  constexpr uint64_t kEmbeddingOffset = 5, kNormOffset = 11;
  uint8_t* const numbers = image.data() + sizeof header + header;
  std::memcpy(numbers + 8 * kNormOffset, numbers + 8 * kEmbeddingOffset, 8);
  resident.contents = kernels::ResidentMemory::make("a test").value();
  ASSERT_TRUE(resident.contents.write(0, image));
  ASSERT_TRUE(resident.contents.seal());
  const auto weights = attached(resident);
  ASSERT_FALSE(weights);
  EXPECT_THAT(weights.error().message, HasSubstr("the list of what they are cannot be right"));
}

TEST_F(ResidentDeviceWeightsTest, AreRefusedWhereOneByteHasChanged) {
  const ResidentDeviceWeights resident = left();
  {
    const auto memory = kernels::PeerMemory::attach(resident.regions[0].memory, resident.regions[0].bytes).value();
    const auto stream = kernels::Stream::make().value();
    uint8_t byte = 0;
    kernels::copy_to_host(&byte, memory.data() + 1'000, 1, stream);
    stream.synchronize();
    byte ^= 1;
    kernels::copy_to_device(memory.data() + 1'000, &byte, 1, stream);
    stream.synchronize();
  }
  const auto weights = attached(resident);
  ASSERT_FALSE(weights);
  EXPECT_THAT(weights.error().message, HasSubstr("has changed"));
}

}  // namespace
}  // namespace lorikeet::model
