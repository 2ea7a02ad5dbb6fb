// Adapter slots that outlive a CUDA model: the next one finds what they hold. Needs a CUDA device.
#include "model/forward/resident_device_adapters.h"

#include <fcntl.h>
#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/peer/peer_memory.h"
#include "model/forward/slot_records.h"
#include "tests/model/forward/cuda_fixture.h"
#include "tests/model/forward/cuda_sequences.h"
#include "tests/model/forward/golden_run.h"

namespace lorikeet::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kWhat = "a test's slots";

class ResidentDeviceAdaptersTest : public tests::OnCuda {
 protected:
  void SetUp() override {
    OnCuda::SetUp();
    if (IsSkipped()) return;
    made_ = make_adapter_memory(plan_, 0, options(), kWhat).value();
    memory_ = made_.memory->share().value();
  }

  static CudaModelOptions options() {
    CudaModelOptions options;
    options.max_num_seqs = 8;
    options.max_num_batched_tokens = 64;
    options.max_model_len = 256;
    options.num_slots = 3;
    return options;
  }

  std::unique_ptr<CudaModel> load(AdapterMemory memory) const {
    CudaModelOptions with = options();
    with.adapter_memory = std::move(memory);
    return tests::start_whole(checkpoint_, with, 64);
  }

  // As a process that comes after the one that made them.
  Result<AdapterMemory> attach(const CudaModelOptions& of) const {
    Descriptor records(fcntl(made_.records->descriptor().get(), F_DUPFD_CLOEXEC, 0));
    return attach_adapter_memory(std::move(records), memory_, plan_, 0, of, kWhat);
  }
  std::unique_ptr<CudaModel> load_again() const { return load(attach(options()).value()); }

  // Returns its digest.
  std::string put(CudaModel& model, int32_t slot, const std::string& name) const {
    const Adapter part = adapters(model).at(name);
    const std::vector<AdapterSlice> slices{plan_slice(part, plan_, 0, model.slice_layout())};
    std::vector<uint8_t> bytes(slices[0].bytes);
    uint8_t* const to = bytes.data();
    CHECK(write_slices(part, plan_, slices, {&to, 1}, 1));
    CHECK(model.set_slice(slot, slices[0], {bytes.data()}));
    model.record_slot(slot, slices[0]);
    return part.digest;
  }

  std::map<std::string, Adapter> adapters(CudaModel& model) const {
    return tests::cut_adapters(checkpoint_, plan_, 0, model, [](std::vector<float>&) {});
  }

  static std::vector<int32_t> tokens(CudaModel& model, int32_t slot) {
    tests::TestSequence sequence({5, 300, 42, 77, 19, 1'000}, 3, slot);
    tests::steps_alone(model, sequence, 12);
    return sequence.ids;
  }

  const tests::GoldenCheckpoint checkpoint_ = tests::example_checkpoint();
  const ShardPlan plan_ = tests::plan_of(checkpoint_);
  AdapterMemory made_;
  Descriptor memory_;
};

TEST_F(ResidentDeviceAdaptersTest, FindsTheAdaptersWhereTheLastModelHadThem) {
  std::string moby, kjv;
  std::vector<int32_t> base, with_moby, with_kjv;
  {
    const auto model = load(made_);
    EXPECT_THAT(model->adapters_left(), ElementsAre("", "", ""));
    put(*model, 1, "shakespeare");
    kjv = put(*model, 0, "kjv");
    moby = put(*model, 1, "moby");  // in its place
    put(*model, 2, "shakespeare");
    model->clear_adapter(2);
    base = tokens(*model, -1);
    with_kjv = tokens(*model, 0);
    with_moby = tokens(*model, 1);
    ASSERT_NE(with_moby, base);
    ASSERT_NE(with_moby, with_kjv);
  }
  for (int i = 0; i < 2; ++i) {
    const auto model = load_again();
    EXPECT_THAT(model->adapters_left(), ElementsAre(kjv, moby, ""));
    EXPECT_EQ(tokens(*model, 0), with_kjv);
    EXPECT_EQ(tokens(*model, 1), with_moby);
    EXPECT_EQ(tokens(*model, -1), base);
    put(*model, 2, "shakespeare");  // into what is free, and nothing else
    EXPECT_EQ(tokens(*model, 0), with_kjv);
    EXPECT_EQ(tokens(*model, 1), with_moby);
    model->clear_adapter(2);
  }
}

TEST_F(ResidentDeviceAdaptersTest, LeavesASlotEmptyThatDoesNotHoldWhatItIsSaidTo) {
  std::string kjv;
  {
    const auto model = load(made_);
    kjv = put(*model, 0, "kjv");
    put(*model, 1, "moby");
    put(*model, 2, "shakespeare");
  }
  SlotRecord elsewhere = made_.records->read(2).value();
  elsewhere.spans[0].offset = made_.memory->bytes();
  made_.records->write(2, elsewhere);
  const SlotRecord changed = made_.records->read(1).value();
  kernels::copy_to_device(made_.memory->data() + changed.spans[1].offset, "another.", 8,
                          kernels::Stream::make().value());
  kernels::synchronize_device();
  const auto model = load_again();
  EXPECT_THAT(model->adapters_left(), ElementsAre(kjv, "", ""));
  const std::vector<int32_t> expected = tokens(*model, 0);
  const std::string moby = put(*model, 1, "moby");
  EXPECT_EQ(tokens(*model, 0), expected);
  EXPECT_THAT(load_again()->adapters_left(), ElementsAre(kjv, moby, ""));
}

TEST_F(ResidentDeviceAdaptersTest, RefusesSlotsOfAnotherShape) {
  CudaModelOptions more = options();
  more.num_slots = 4;
  EXPECT_FALSE(attach(more));
  CudaModelOptions other = options();
  other.max_lora_rank = 32;
  const auto attached = attach(other);
  ASSERT_FALSE(attached);
  EXPECT_THAT(attached.error().message, HasSubstr("ranks up to 32"));
}

}  // namespace
}  // namespace lorikeet::model
