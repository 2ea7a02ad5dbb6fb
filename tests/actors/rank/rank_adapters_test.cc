#include "actors/rank/rank_adapters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>

#include "actors/head/adapter_transfer.h"
#include "comm/codec/codec.h"
#include "tests/actors/fake_model.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const AdapterTransfer::TimePoint kNow{};

class RankAdaptersTest : public ::testing::Test {
 protected:
  RankAdaptersTest() {
    rank_ = std::make_unique<RankAdapters>(RankAdapters::Setup{0, 4, 2}, plan_, model_, [this](Envelope envelope) {
      {
        const std::lock_guard lock(mutex_);
        said_.push_back(std::move(envelope));
      }
      wake_.notify_one();
    });
  }

  Envelope next() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return !said_.empty(); });
    Envelope envelope = std::move(said_.front());
    said_.pop_front();
    return envelope;
  }

  AdapterDone next_done() {
    const Envelope envelope = next();
    EXPECT_EQ(envelope.kind, EnvelopeKind::adapter_done);
    return comm::decode<AdapterDone>(envelope.bytes).value();
  }

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
  std::unique_ptr<RankAdapters> rank_;
};

TEST_F(RankAdaptersTest, PutsAnAdapterIntoItsSlot) {
  const auto adapter = query_adapter(false);
  AdapterTransfer transfer(1, 4, 1, staged(adapter), kNow);
  send(transfer.start());
  const Envelope credit = next();
  EXPECT_EQ(credit.kind, EnvelopeKind::chunk_taken);
  EXPECT_EQ(credit.step, 1u);
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
  EXPECT_EQ(next().kind, EnvelopeKind::chunk_taken);
  const Envelope norms = next();
  EXPECT_EQ(norms.kind, EnvelopeKind::adapter_norms);
  ASSERT_TRUE(transfer.add_norms(norms, kNow));
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
  const AdapterBegin what{adapter.digest, 1, 0};
  rank_->take(envelopes[0]);
  rank_->take({EnvelopeKind::adapter_clear, 0, 4, 1, true, comm::encode(what)});
  rank_->take(envelopes[1]);  // was on its way
  send(AdapterTransfer(2, 4, 0, staged(adapter), kNow).start());
  EXPECT_EQ(next().step, 2u) << "nothing is said of the first";
  EXPECT_EQ(next_done().error, "");
  const std::lock_guard lock(model_->mutex);
  EXPECT_FALSE(model_->slots.contains(1));
}

}  // namespace
}  // namespace lorikeet::actors
