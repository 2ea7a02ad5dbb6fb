#include "actors/rank/rank_adapters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <future>

#include "actors/head/adapter_transfer.h"
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
    RankAdapters::Callbacks callbacks;
    callbacks.to_cache = [this](Envelope envelope) {
      {
        const std::lock_guard lock(mutex_);
        said_.push_back(std::move(envelope));
      }
      wake_.notify_one();
    };
    callbacks.fatal = [this](const std::string& why) { fatal_.set_value(why); };
    rank_ = std::make_unique<RankAdapters>(RankAdapters::Setup{0, 4, 2}, plan_, model_, std::move(callbacks));
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

  void send(std::vector<Envelope> envelopes) {
    for (Envelope& envelope : envelopes) rank_->take(std::move(envelope));
  }

  const model::ShardPlan plan_ = model::ShardPlan::make(small_config(), 1).value();
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Envelope> said_;
  std::promise<std::string> fatal_;
  std::unique_ptr<RankAdapters> rank_;
};

TEST_F(RankAdaptersTest, PutsAnAdapterIntoItsSlot) {
  const auto adapter = query_adapter(false);
  AdapterTransfer transfer(1, 4, 1, staged(adapter), kNow);
  send(transfer.start());
  const Envelope credit = next();
  report_in<ChunkTaken>(credit);
  EXPECT_EQ(message_in<AdapterReport>(credit).transfer, 1u);
  const auto done = next_done();
  EXPECT_EQ(done.error, "");
  EXPECT_EQ(done.digest, adapter.digest);
  const std::lock_guard lock(model_->mutex);
  EXPECT_EQ(model_->slots.at(1).layers[0][0]->a, adapter.layers[0][0]->a);
}

TEST_F(RankAdaptersTest, WaitsForTheFactorsOfDora) {
  model_->squared_norm = 9;
  const auto adapter = staged(query_adapter(true));
  AdapterTransfer transfer(1, 4, 0, adapter, kNow);
  send(transfer.start());
  report_in<ChunkTaken>(next());
  ASSERT_TRUE(transfer.add_norms(0, report_in<DoraValues>(next()), kNow));
  send(transfer.factors(dora_factors(*adapter, transfer.norms()).value()));
  EXPECT_EQ(next_done().error, "");
  const std::lock_guard lock(model_->mutex);
  EXPECT_THAT(model_->slots.at(0).layers[0][0]->dora_factor, ::testing::Each(2.0F));
}

TEST_F(RankAdaptersTest, RefusesFactorsOfAnotherShape) {
  const auto adapter = staged(query_adapter(true));
  AdapterTransfer transfer(1, 4, 0, adapter, kNow);
  send(transfer.start());
  next();
  next();
  send(transfer.factors({{{{{1, 2}}}}}));
  EXPECT_THAT(next_done().error, HasSubstr("2 factors where the adapter has 32"));
}

TEST_F(RankAdaptersTest, TellsWhyTheModelRefuses) {
  model_->adapter_error = "the device has no memory left";
  AdapterTransfer transfer(1, 4, 0, staged(query_adapter(false)), kNow);
  send(transfer.start());
  next();
  EXPECT_EQ(next_done().error, "the device has no memory left");
}

TEST_F(RankAdaptersTest, RefusesASliceThatIsNotWhatItSays) {
  auto adapter = staged(query_adapter(false));
  adapter->digest = "another";
  send(AdapterTransfer(1, 4, 0, adapter, kNow).start());
  next();
  EXPECT_THAT(next_done().error, HasSubstr("not of another"));
  adapter->slices[0].resize(adapter->slices[0].size() / 2);
  send(AdapterTransfer(2, 4, 0, adapter, kNow).start());
  next();
  EXPECT_FALSE(next_done().error.empty());
  send(AdapterTransfer(3, 4, 7, adapter, kNow).start());
  EXPECT_THAT(next_done().error, HasSubstr("adapter slot 7 of 2"));
}

TEST_F(RankAdaptersTest, RollsBackATransferUnderWay) {
  const auto adapter = query_adapter(false);
  auto envelopes = AdapterTransfer(1, 4, 1, staged(adapter), kNow).start();
  rank_->take(envelopes[0]);
  rank_->take(envelope_of(AdapterOrder{1, AdapterClear{1}}, 0, 4));
  rank_->take(envelopes[1]);  // was on its way
  send(AdapterTransfer(2, 4, 0, staged(adapter), kNow).start());
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
