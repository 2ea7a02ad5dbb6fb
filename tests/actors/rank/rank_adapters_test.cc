#include "actors/rank/rank_adapters.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>

#include "actors/head/adapter_transfer.h"
#include "model/adapter/adapter_slice.h"
#include "tests/actors/envelopes.h"
#include "tests/actors/fake_model.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const AdapterTransfer::TimePoint kNow{};

class RankAdaptersTest : public ::testing::Test {
 protected:
  RankAdaptersTest() {
    auto ends = make_descriptor_channel().value();
    senders_.put(0, std::move(ends.first));
    descriptors_ = std::make_shared<DescriptorReceiver>(std::move(ends.second));
    join(4);
  }

  // A group of this epoch, with the model of the one before.
  void join(uint64_t epoch) {
    rank_.reset();
    RankAdapters::Callbacks callbacks;
    callbacks.to_cache = [this](Envelope envelope) {
      {
        const std::lock_guard lock(mutex_);
        said_.push_back(std::move(envelope));
      }
      wake_.notify_one();
    };
    callbacks.fatal = [this](const std::string& why) { fatal_.set_value(why); };
    const RankAdapters::Setup setup{0, epoch, 2, descriptors_, held_};
    rank_ = std::make_unique<RankAdapters>(setup, plan_, model_, std::move(callbacks));
  }

  Envelope next() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return !said_.empty(); });
    Envelope envelope = std::move(said_.front());
    said_.pop_front();
    return envelope;
  }

  AdapterDone next_done() { return report_in<AdapterDone>(next()); }

  // An adapter over the first layer's query projection.
  model::Adapter query_adapter(bool dora) const {
    model::Adapter adapter;
    adapter.digest = "0123456789abcdef0123456789abcdef";
    adapter.layers.resize(1);
    model::LoraPair pair;
    pair.rank = 1;
    pair.scale = 2;
    pair.inputs = 32;
    pair.outputs = 32;
    pair.a = std::vector<float>(32, 0.5F);
    pair.b = std::vector<float>(32, 0.25F);
    if (dora) pair.magnitude.assign(32, 6);
    adapter.layers[0][0] = pair;
    adapter.count_bytes();
    return adapter;
  }

  std::shared_ptr<StagedAdapter> staged(const model::Adapter& adapter) const {
    auto made = std::make_shared<StagedAdapter>();
    made->digest = adapter.digest;
    made->slices = {model::encode_adapter(model::cut_adapter(adapter, plan_, 0))};
    if (adapter.uses_dora()) made->dora = {{false, {adapter.layers[0][0]->magnitude}}};
    return made;
  }

  // The same packed, in memory that can be handed over, of which it has all behind the first page.
  std::shared_ptr<StagedAdapter> in_region(const model::Adapter& adapter) const {
    auto made = std::make_shared<StagedAdapter>();
    made->digest = adapter.digest;
    const std::vector<uint8_t> bytes = packed(adapter);
    auto memory = kernels::ResidentMemory::make("test").value();
    EXPECT_TRUE(memory.write(model::kSliceAlignment, bytes));
    EXPECT_TRUE(memory.seal());
    made->region = std::move(memory);
    made->parts = {{model::kSliceAlignment, bytes.size()}};
    return made;
  }
  std::vector<uint8_t> packed(const model::Adapter& adapter) const {
    const std::vector<model::AdapterSlice> slices = {model::plan_slice(adapter, plan_, 0, model::SliceLayout::cpu_f32)};
    std::vector<uint8_t> bytes(slices[0].bytes);
    uint8_t* const to = bytes.data();
    EXPECT_TRUE(model::write_slices(adapter, plan_, slices, {&to, 1}, 1));
    return bytes;
  }

  AdapterTransfer::HandOver hand_over() {
    return [this](int32_t rank, uint64_t number, const Descriptor& memory) {
      return senders_.send(rank, number, memory).has_value();
    };
  }

  // What the rank says to memory that is none of its kind, under the number 1.
  std::string refusal(const Descriptor& memory, const AdapterRegion& region) {
    EXPECT_TRUE(senders_.send(0, 1, memory));
    rank_->take(envelope_of(AdapterOrder{1, region}, 0, 4));
    return next_done().error;
  }

  // A of the query projection, as the slot has it.
  std::vector<float> a_in_slot(int32_t slot) {
    const std::lock_guard lock(model_->mutex);
    const FakeModel::Slice& held = model_->slices.at(slot);
    const model::SlicePair& pair = held.what.of(0, 0);
    std::vector<float> a(static_cast<size_t>(pair.rank) * static_cast<size_t>(pair.inputs));
    std::memcpy(a.data(), held.bytes + pair.a, a.size() * sizeof(float));
    return a;
  }

  void send(std::vector<Envelope> envelopes) {
    for (Envelope& envelope : envelopes) rank_->take(std::move(envelope));
  }

  const model::ShardPlan plan_ = model::ShardPlan::make(small_config(), 1).value();
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Envelope> said_;
  std::promise<std::string> fatal_;
  DescriptorSenders senders_;
  std::shared_ptr<DescriptorReceiver> descriptors_;
  ChunkWindows windows_;
  const std::shared_ptr<SlotDigests> held_ = std::make_shared<SlotDigests>();
  std::unique_ptr<RankAdapters> rank_;
};

TEST_F(RankAdaptersTest, PutsAnAdapterIntoItsSlot) {
  const auto adapter = query_adapter(false);
  AdapterTransfer transfer(1, 4, 1, staged(adapter), windows_, kNow);
  send(transfer.start(kNow));
  const Envelope credit = next();
  report_in<ChunkTaken>(credit);
  EXPECT_EQ(message_in<AdapterReport>(credit).transfer, 1u);
  const auto done = next_done();
  EXPECT_EQ(done.error, "");
  EXPECT_EQ(done.digest, adapter.digest);
  const std::lock_guard lock(model_->mutex);
  EXPECT_EQ(model_->slots.at(1).layers[0][0]->a, adapter.layers[0][0]->a);
}

TEST_F(RankAdaptersTest, PutsAPackedAdapterIntoItsSlotFromTheMemoryThatItLiesIn) {
  const auto adapter = query_adapter(false);
  auto staged = in_region(adapter);
  send(AdapterTransfer(1, 4, 1, staged, windows_, kNow).start(kNow, hand_over()));
  const auto done = next_done();
  EXPECT_EQ(done.error, "");
  EXPECT_EQ(done.digest, adapter.digest);
  staged.reset();
  EXPECT_EQ(a_in_slot(1), std::vector<float>(32, 0.5F)) << "the head may drop it";
  const std::lock_guard lock(model_->mutex);
  EXPECT_TRUE(model_->slices.at(1).in_memory);
}

TEST_F(RankAdaptersTest, RecordsASlotWithoutLettingTheHeadWaitForIt) {
  std::promise<void> heard;
  model_->on_record = [heard = heard.get_future().share()] {
    EXPECT_EQ(heard.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  };
  send(AdapterTransfer(1, 4, 1, in_region(query_adapter(false)), windows_, kNow).start(kNow, hand_over()));
  const auto done = next_done();
  EXPECT_EQ(done.error, "");
  heard.set_value();
  rank_.reset();  // finishes what it is at
  EXPECT_THAT(model_->recorded, ElementsAre(std::pair(1, done.digest)));
}

TEST_F(RankAdaptersTest, RecordsNothingThatTheModelHasRefused) {
  model_->adapter_error = "no room";
  send(AdapterTransfer(1, 4, 1, in_region(query_adapter(false)), windows_, kNow).start(kNow, hand_over()));
  EXPECT_EQ(next_done().error, "no room");
  rank_.reset();
  EXPECT_TRUE(model_->recorded.empty());
}

TEST_F(RankAdaptersTest, PutsAPackedAdapterIntoItsSlotFromChunks) {
  const auto adapter = query_adapter(false);
  AdapterTransfer transfer(1, 4, 0, in_region(adapter), windows_, kNow);
  send(transfer.start(kNow));
  report_in<ChunkTaken>(next());
  EXPECT_EQ(next_done().error, "");
  EXPECT_EQ(a_in_slot(0), std::vector<float>(32, 0.5F));
  const std::lock_guard lock(model_->mutex);
  EXPECT_FALSE(model_->slices.at(0).in_memory);
}

TEST_F(RankAdaptersTest, AsksForChunksWhereNoDescriptorHasCome) {
  AdapterTransfer transfer(1, 4, 1, in_region(query_adapter(false)), windows_, kNow);
  send(transfer.start(kNow, [](int32_t, uint64_t, const Descriptor&) { return true; }));
  const auto wanted = report_in<ChunksWanted>(next());
  EXPECT_THAT(wanted.why, HasSubstr("no descriptor has come under the number 1"));
  send(transfer.chunks_wanted(0, wanted.why, kNow));
  report_in<ChunkTaken>(next());
  EXPECT_EQ(next_done().error, "");
  EXPECT_EQ(a_in_slot(1), std::vector<float>(32, 0.5F));
}

TEST_F(RankAdaptersTest, TakesSeveralThatWereHandedOverAtOnce) {
  std::vector<std::shared_ptr<StagedAdapter>> all;
  for (uint64_t number = 1; number <= 6; ++number) {
    auto adapter = query_adapter(false);
    adapter.layers[0][0]->a = std::vector<float>(32, static_cast<float>(number));
    all.push_back(in_region(adapter));
    const auto slot = static_cast<int32_t>(number % 2);
    // The fourth was rolled back before the rank came to it.
    auto envelopes = AdapterTransfer(number, 4, slot, all.back(), windows_, kNow).start(kNow, hand_over());
    if (number != 4) send(std::move(envelopes));
  }
  for (int i = 0; i < 5; ++i) EXPECT_EQ(next_done().error, "");
  EXPECT_EQ(a_in_slot(0), std::vector<float>(32, 6.0F));
  EXPECT_EQ(a_in_slot(1), std::vector<float>(32, 5.0F));
}

TEST_F(RankAdaptersTest, RefusesMemoryThatIsNotWhatItSays) {
  const auto adapter = query_adapter(false);
  const auto good = in_region(adapter);
  const Descriptor& memory = good->region.descriptor();
  const uint64_t all = good->region.bytes().size(), offset = good->parts[0].offset, bytes = good->parts[0].bytes;
  const AdapterRegion right{adapter.digest, 0, all, offset, bytes};
  EXPECT_EQ(refusal(memory, right), "");

  const Descriptor open(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(open.get(), static_cast<off_t>(all)), 0);
  EXPECT_THAT(refusal(open, right), HasSubstr("not one of sealed memory"));
  const Descriptor device(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(refusal(device, right), HasSubstr("not one of sealed memory"));

  EXPECT_THAT(refusal(memory, {adapter.digest, 0, all + 1, offset, bytes}), HasSubstr("and is said to have"));
  EXPECT_THAT(refusal(memory, {adapter.digest, 0, all, offset, bytes + 4096}), HasSubstr("in memory of"));
  EXPECT_THAT(refusal(memory, {adapter.digest, 0, all, ~uint64_t{4095}, bytes}), HasSubstr("in memory of"));
  EXPECT_THAT(refusal(memory, {adapter.digest, 0, all, 1, bytes}), HasSubstr("in memory of"));
  EXPECT_THAT(refusal(memory, {adapter.digest, 0, all, offset, bytes - 1}), HasSubstr("its ranks call for"));
  EXPECT_THAT(refusal(memory, {adapter.digest, 0, all, 0, bytes}), HasSubstr("adapter part"));
  EXPECT_THAT(refusal(memory, {"ffffffffffffffffffffffffffffffff", 0, all, offset, bytes}), HasSubstr("not of ffff"));
}

TEST_F(RankAdaptersTest, TakesChunksOfMemoryThatItCannotMap) {
  constexpr uint64_t kNoRoom = uint64_t{1} << 60;
  const Descriptor large(memfd_create("large", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(large.get(), static_cast<off_t>(kNoRoom)), 0);
  ASSERT_EQ(fcntl(large.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
  ASSERT_TRUE(senders_.send(0, 1, large));
  rank_->take(envelope_of(AdapterOrder{1, AdapterRegion{"d1", 0, kNoRoom, 0, 4096}}, 0, 4));
  EXPECT_THAT(report_in<ChunksWanted>(next()).why, HasSubstr("cannot be mapped"));
}

TEST_F(RankAdaptersTest, ConfirmsInALaterGroupWhatItsSlotsHold) {
  const auto adapter = query_adapter(false);
  send(AdapterTransfer(1, 4, 1, in_region(adapter), windows_, kNow).start(kNow, hand_over()));
  EXPECT_EQ(next_done().error, "");
  join(5);
  AdapterTransfer again(2, 5, 1, in_region(adapter), windows_, kNow);
  send(again.start(kNow, hand_over(), true));
  const auto done = next_done();
  EXPECT_EQ(done.digest, adapter.digest);
  EXPECT_EQ(done.error, "");
  EXPECT_EQ(a_in_slot(1), std::vector<float>(32, 0.5F));

  AdapterTransfer elsewhere(3, 5, 0, in_region(adapter), windows_, kNow);
  send(elsewhere.start(kNow, hand_over(), true));
  report_in<SliceWanted>(next());
  send(elsewhere.slice_wanted(0, hand_over(), kNow));
  EXPECT_EQ(next_done().error, "");
  EXPECT_EQ(a_in_slot(0), std::vector<float>(32, 0.5F));
}

TEST_F(RankAdaptersTest, ConfirmsNothingThatWasReplacedRefusedOrEmptied) {
  auto replaced = query_adapter(false);
  send(AdapterTransfer(1, 4, 0, in_region(replaced), windows_, kNow).start(kNow, hand_over()));
  EXPECT_EQ(next_done().error, "");
  auto other = query_adapter(false);
  other.digest = "fedcba9876543210fedcba9876543210";
  send(AdapterTransfer(2, 4, 0, in_region(other), windows_, kNow).start(kNow, hand_over()));
  EXPECT_EQ(next_done().error, "");
  const auto is_held = [&](uint64_t number, const model::Adapter& adapter, int32_t slot) {
    send(AdapterTransfer(number, 4, slot, in_region(adapter), windows_, kNow).start(kNow, hand_over(), true));
    const auto report = message_in<AdapterReport>(next());
    return std::holds_alternative<AdapterDone>(report.what);
  };
  EXPECT_FALSE(is_held(3, replaced, 0));
  EXPECT_TRUE(is_held(4, other, 0));
  rank_->take(envelope_of(AdapterOrder{5, AdapterClear{0}}, 0, 4));
  EXPECT_FALSE(is_held(6, other, 0));

  send(AdapterTransfer(7, 4, 1, in_region(other), windows_, kNow).start(kNow, hand_over()));
  EXPECT_EQ(next_done().error, "");
  model_->adapter_error = "the device has no memory left";
  send(AdapterTransfer(8, 4, 1, in_region(replaced), windows_, kNow).start(kNow, hand_over()));
  EXPECT_EQ(next_done().error, "the device has no memory left");
  EXPECT_FALSE(is_held(9, other, 1)) << "nobody knows what the slot holds now";
  rank_->take(envelope_of(AdapterOrder{10, AdapterConfirm{"d1", 2}}, 0, 4));
  EXPECT_THAT(next_done().error, HasSubstr("adapter slot 2 of 2"));
}

TEST_F(RankAdaptersTest, WaitsForTheFactorsOfDora) {
  model_->squared_norm = 9;
  const auto adapter = staged(query_adapter(true));
  AdapterTransfer transfer(1, 4, 0, adapter, windows_, kNow);
  send(transfer.start(kNow));
  report_in<ChunkTaken>(next());
  ASSERT_TRUE(transfer.add_norms(0, report_in<DoraValues>(next()), kNow));
  send(transfer.factors(dora_factors(*adapter, transfer.norms()).value()));
  EXPECT_EQ(next_done().error, "");
  const std::lock_guard lock(model_->mutex);
  EXPECT_THAT(model_->slots.at(0).layers[0][0]->dora_factor, ::testing::Each(2.0F));
}

TEST_F(RankAdaptersTest, RefusesFactorsOfAnotherShape) {
  const auto adapter = staged(query_adapter(true));
  AdapterTransfer transfer(1, 4, 0, adapter, windows_, kNow);
  send(transfer.start(kNow));
  next();
  next();
  send(transfer.factors({{{{{1, 2}}}}}));
  EXPECT_THAT(next_done().error, HasSubstr("2 factors where the adapter has 32"));
}

TEST_F(RankAdaptersTest, TellsWhyTheModelRefuses) {
  model_->adapter_error = "the device has no memory left";
  AdapterTransfer transfer(1, 4, 0, staged(query_adapter(false)), windows_, kNow);
  send(transfer.start(kNow));
  next();
  EXPECT_EQ(next_done().error, "the device has no memory left");
}

TEST_F(RankAdaptersTest, RefusesASliceThatIsNotWhatItSays) {
  auto adapter = staged(query_adapter(false));
  adapter->digest = "another";
  send(AdapterTransfer(1, 4, 0, adapter, windows_, kNow).start(kNow));
  next();
  EXPECT_THAT(next_done().error, HasSubstr("not of another"));
  adapter->slices[0].resize(adapter->slices[0].size() / 2);
  send(AdapterTransfer(2, 4, 0, adapter, windows_, kNow).start(kNow));
  next();
  EXPECT_FALSE(next_done().error.empty());
  send(AdapterTransfer(3, 4, 7, adapter, windows_, kNow).start(kNow));
  EXPECT_THAT(next_done().error, HasSubstr("adapter slot 7 of 2"));
}

TEST_F(RankAdaptersTest, RollsBackATransferUnderWay) {
  const auto adapter = query_adapter(false);
  auto envelopes = AdapterTransfer(1, 4, 1, staged(adapter), windows_, kNow).start(kNow);
  rank_->take(envelopes[0]);
  rank_->take(envelope_of(AdapterOrder{1, AdapterClear{1}}, 0, 4));
  rank_->take(envelopes[1]);  // was on its way
  send(AdapterTransfer(2, 4, 0, staged(adapter), windows_, kNow).start(kNow));
  EXPECT_EQ(message_in<AdapterReport>(next()).transfer, 2u) << "nothing is said of the first";
  EXPECT_EQ(next_done().error, "");
  const std::lock_guard lock(model_->mutex);
  EXPECT_FALSE(model_->slots.contains(1));
}

TEST_F(RankAdaptersTest, GivesUpOnAHeadWhoseOrdersCannotBeRead) {
  Envelope forged = envelope_of(AdapterOrder{1, AdapterClear{1}}, 0, 4);
  forged.bytes.back() = 0xFF;
  forged.bytes.resize(forged.bytes.size() - 1);
  rank_->take(forged);
  EXPECT_THAT(fatal_.get_future().get(), HasSubstr("malformed message"));
}

}  // namespace
}  // namespace lorikeet::actors
