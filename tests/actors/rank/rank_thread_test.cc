#include "actors/rank/rank_thread.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tests/actors/envelopes.h"
#include "tests/actors/fake_model.h"

namespace lorikeet::actors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NoStore final : public comm::Rendezvous {
 public:
  void set(const std::string&, const std::vector<uint8_t>&) override {}
  std::vector<uint8_t> get(const std::string&, std::chrono::milliseconds) override { return {}; }
};

// Collects what the thread says; next() waits for it.
class RankThreadTest : public ::testing::Test {
 protected:
  void start() {
    RankThread::Callbacks callbacks;
    callbacks.to_scheduler = [this](Envelope envelope) { push(std::move(envelope)); };
    callbacks.loading = [this](int done, int total) {
      const std::lock_guard lock(mutex_);
      progress_.push_back(fmt::format("rank 1: layer {} of {}", done, total));
    };
    callbacks.formed = [](std::shared_ptr<model::RankModel>, uint64_t) {};
    callbacks.left = [this](uint64_t epoch) { left_.set_value(epoch); };
    callbacks.fatal = [this](const std::string& why) { fatal_.set_value(why); };
    thread_ = std::make_unique<RankThread>(RankThread::Setup{1, 5, 4, 2}, backend_, callbacks);
  }

  void start_and_form() {
    start();
    ASSERT_TRUE(is_report<RankLoaded>(next()));
    ASSERT_TRUE(thread_->form(8, std::make_unique<NoStore>()));
    ASSERT_TRUE(is_report<RankReady>(next()));
  }

  void push(Envelope envelope) {
    {
      const std::lock_guard lock(mutex_);
      said_.push_back(std::move(envelope));
    }
    wake_.notify_one();
  }

  Envelope next() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return !said_.empty(); });
    Envelope envelope = std::move(said_.front());
    said_.pop_front();
    return envelope;
  }

  engine::StepResult next_result() {
    const Envelope envelope = next();
    EXPECT_EQ(envelope.epoch, 5u);
    EXPECT_EQ(envelope.rank, 1);
    auto result = message_in<engine::StepResult>(envelope);
    EXPECT_EQ(envelope.step, result.step.value());
    return result;
  }

  // The first plan starts a sequence, later ones go on with it.
  static std::vector<uint8_t> plan(uint64_t step, uint64_t epoch = 5, const engine::SamplingParams& sampling = {}) {
    engine::StepPlan made;
    made.epoch = engine::Epoch(epoch);
    made.step = engine::StepId(step);
    const engine::SequenceId id(1);
    if (step == 1) {
      made.starts.push_back({id, engine::kBaseSlot, {7}, 1, sampling});
      made.blocks.push_back({id, {engine::BlockId(0), engine::BlockId(1)}});
    }
    made.rows.push_back({id, static_cast<int32_t>(step) - 1, 1, true});
    return encode_plan(made);
  }

  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Envelope> said_;
  std::vector<std::string> progress_;
  std::promise<std::string> fatal_;
  std::promise<uint64_t> left_;
  std::unique_ptr<RankThread> thread_;
};

TEST_F(RankThreadTest, LoadsMeetsTheOthersAndSteps) {
  start_and_form();
  EXPECT_EQ(backend_->joined_blocks, 8);
  EXPECT_THAT(progress_, ElementsAre("rank 1: layer 1 of 1"));
  ASSERT_TRUE(thread_->plan(plan(1)));
  EXPECT_EQ(next_result().rows[0].token_id, 1001);
  ASSERT_TRUE(thread_->plan(plan(2)));
  EXPECT_EQ(next_result().rows[0].token_id, 1002);
  EXPECT_EQ(thread_->steps_finished(), 2u);
}

TEST_F(RankThreadTest, TellsWhyItCannotLoad) {
  backend_->load_error = "model.safetensors is cut short";
  start();
  EXPECT_EQ(fatal_.get_future().get(), "model.safetensors is cut short");
}

TEST_F(RankThreadTest, TellsThatTheHostsMemoryDoesNotSuffice) {
  backend_->no_memory_to_load = true;
  start();
  EXPECT_THAT(fatal_.get_future().get(), HasSubstr("memory does not hold the weights"));
}

TEST_F(RankThreadTest, TellsThatTheHostsMemoryHoldsNoSuchCache) {
  backend_->no_memory_to_join = true;
  start();
  ASSERT_TRUE(is_report<RankLoaded>(next()));
  ASSERT_TRUE(thread_->form(8, std::make_unique<NoStore>()));
  EXPECT_THAT(fatal_.get_future().get(), HasSubstr("--kv-cache-memory-bytes"));
}

TEST_F(RankThreadTest, BeginsTheNextStepWhileADeviceStillComputesTheLast) {
  backend_->model->ready = false;
  start_and_form();
  ASSERT_TRUE(thread_->plan(plan(1)));
  ASSERT_TRUE(thread_->plan(plan(2)));
  // With two in flight it waits for the older one, whether it is ready or not.
  EXPECT_EQ(next_result().step, engine::StepId(1));
  {
    const std::lock_guard lock(backend_->model->mutex);
    ASSERT_EQ(backend_->model->begun.size(), 2u);
    EXPECT_EQ(backend_->model->begun[1][0].pending_row, 0);
  }
  EXPECT_TRUE(thread_->step_age());
  backend_->model->ready = true;
  EXPECT_EQ(next_result().step, engine::StepId(2));
}

TEST_F(RankThreadTest, ConstrainsAStepWhenTheOneBeforeItIsAnswered) {
  backend_->model->later = true;
  backend_->model->ready = false;
  start_and_form();
  engine::SamplingParams thinks_briefly;
  thinks_briefly.answer.thinking = 2;
  thinks_briefly.answer.thinking_budget = 1;
  thinks_briefly.answer.opening_tag = {40};
  thinks_briefly.answer.closing_tag = {41};
  for (const uint64_t step : {1, 2, 3}) ASSERT_TRUE(thread_->plan(plan(step, 5, thinks_briefly)));
  for (const int32_t token : {1001, 1002}) EXPECT_EQ(next_result().rows[0].token_id, token);
  backend_->model->ready = true;
  EXPECT_EQ(next_result().rows[0].token_id, 1003);
  const std::lock_guard lock(backend_->model->mutex);
  ASSERT_EQ(backend_->model->begun.size(), 3U);
  for (const auto& rows : backend_->model->begun) EXPECT_FALSE(rows[0].constrained_later);
}

TEST_F(RankThreadTest, ReportsALostPeerAsTheResultOfTheStep) {
  start_and_form();
  backend_->model->lost_peer = true;
  ASSERT_TRUE(thread_->plan(plan(1)));
  const auto result = next_result();
  EXPECT_EQ(result.step, engine::StepId(1));
  EXPECT_THAT(result.error, HasSubstr("rank 1 is lost"));
  EXPECT_FALSE(thread_->step_age());
}

TEST_F(RankThreadTest, ReportsAPlanThatItCannotRead) {
  start_and_form();
  ASSERT_TRUE(thread_->plan({1, 2, 3}));
  EXPECT_FALSE(next_result().error.empty());
}

TEST_F(RankThreadTest, ReportsAPlanThatContradictsTheOnesBefore) {
  start_and_form();
  ASSERT_TRUE(thread_->plan(plan(2)));
  EXPECT_THAT(next_result().error, HasSubstr("sequence 1, which is not here"));
}

TEST_F(RankThreadTest, GivesUpOnAHeadThatSendsAPlanBeforeTheGroupIsFormed) {
  start();
  ASSERT_TRUE(is_report<RankLoaded>(next()));
  ASSERT_TRUE(thread_->plan(plan(1)));
  EXPECT_THAT(fatal_.get_future().get(), HasSubstr("before the group was formed"));
}

TEST_F(RankThreadTest, GivesUpOnAHeadThatAsksForBlocksThatItCannotHold) {
  for (const int32_t blocks : {0, -1, backend_->num_blocks + 1}) {
    SCOPED_TRACE(blocks);
    fatal_ = {};
    start();
    ASSERT_TRUE(is_report<RankLoaded>(next()));
    ASSERT_TRUE(thread_->form(blocks, std::make_unique<NoStore>()));
    EXPECT_THAT(fatal_.get_future().get(), HasSubstr("this rank can hold 1 .. 64"));
    thread_.reset();
  }
}

TEST_F(RankThreadTest, GivesUpOnAHeadThatFormsTheGroupTwice) {
  start_and_form();
  ASSERT_TRUE(thread_->form(8, std::make_unique<NoStore>()));
  EXPECT_THAT(fatal_.get_future().get(), HasSubstr("a second time"));
}

TEST_F(RankThreadTest, RefusesAPlanThatThereIsNoRoomFor) {
  start();
  const auto refused = thread_->plan(std::vector<uint8_t>(kMaxQueuedPlanBytes));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("no room for a plan"));
}

TEST_F(RankThreadTest, ReportsThatTheRanksDidNotMeetAndJoinsTheNextEpoch) {
  backend_->nobody_to_meet = true;
  start();
  ASSERT_TRUE(is_report<RankLoaded>(next()));
  ASSERT_TRUE(thread_->form(8, std::make_unique<NoStore>()));
  const auto failed = next_result();
  EXPECT_THAT(failed.error, HasSubstr("the ranks did not meet: rank 0 is lost"));
  EXPECT_TRUE(failed.peer_failed);
  backend_->nobody_to_meet = false;
  thread_->leave(6, nullptr);
  EXPECT_EQ(left_.get_future().get(), 6u);
  thread_->announce();
  EXPECT_TRUE(is_report<RankLoaded>(next()));
  ASSERT_TRUE(thread_->form(8, std::make_unique<NoStore>()));
  EXPECT_TRUE(is_report<RankReady>(next()));
}

// ---- the next epoch

TEST_F(RankThreadTest, KeepsWeightsAndModelForTheNextEpoch) {
  start_and_form();
  ASSERT_TRUE(thread_->plan(plan(1)));
  EXPECT_EQ(next_result().rows[0].token_id, 1001);
  auto adapters = std::make_shared<int>();
  const std::weak_ptr<int> adapters_of_the_old_epoch = adapters;
  thread_->leave(6, std::move(adapters));
  EXPECT_EQ(left_.get_future().get(), 6u);
  EXPECT_TRUE(adapters_of_the_old_epoch.expired());
  EXPECT_TRUE(backend_->aborted);
  thread_->announce();
  Envelope envelope = next();
  EXPECT_EQ(envelope.epoch, 6u);
  EXPECT_EQ(std::get<RankLoaded>(message_in<GroupReport>(envelope)).num_blocks, 8) << "the KV cache that there is";
  ASSERT_TRUE(thread_->form(8, std::make_unique<NoStore>()));
  envelope = next();
  EXPECT_EQ(envelope.epoch, 6u);
  EXPECT_TRUE(is_report<RankReady>(envelope));
  EXPECT_EQ(backend_->joined_epoch, 6u);
  EXPECT_EQ(progress_.size(), 1u) << "nothing was loaded again";
  ASSERT_TRUE(thread_->plan(plan(1, 6)));
  envelope = next();
  EXPECT_EQ(envelope.epoch, 6u);
  EXPECT_EQ(message_in<engine::StepResult>(envelope).rows[0].token_id, 1001) << "the sequence starts anew";
}

TEST_F(RankThreadTest, DoesNothingMoreOfAnEpochWhoseStepHasFailedOrThatItHasLeft) {
  start_and_form();
  backend_->model->lost_peer = true;
  ASSERT_TRUE(thread_->plan(plan(1)));
  const auto failed = next_result();
  EXPECT_TRUE(failed.peer_failed);
  ASSERT_TRUE(thread_->plan(plan(2)));
  thread_->leave(6, nullptr);
  EXPECT_EQ(left_.get_future().get(), 6u);
  EXPECT_FALSE(thread_->step_age());
  thread_->announce();
  EXPECT_EQ(next().epoch, 6u);
}

TEST_F(RankThreadTest, LeavesWhileItStillLoads) {
  std::unique_lock loading(backend_->loading);
  start();
  thread_->leave(6, nullptr);
  auto left = left_.get_future();
  thread_->announce();
  loading.unlock();
  EXPECT_EQ(left.get(), 6u);
  EXPECT_EQ(next().epoch, 5u) << "of the epoch in which it was begun; the head does not hear it";
  EXPECT_EQ(next().epoch, 6u);
}

TEST_F(RankThreadTest, AbortsTheCollectiveWhenItsEpochIsOver) {
  start_and_form();
  thread_->fence();
  EXPECT_TRUE(backend_->aborted);
  thread_.reset();
}

}  // namespace
}  // namespace lorikeet::actors
