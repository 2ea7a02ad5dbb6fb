// The worker with its real threads on CAF's real scheduler, in one process.
#include "actors/rank/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "actors/head/adapter_transfer.h"
#include "actors/head/rendezvous_store.h"
#include "actors/rank/actor_rendezvous.h"
#include "actors/wire/system_config.h"
#include "comm/collective/collective.h"
#include "engine/step_plan.h"
#include "tests/actors/envelopes.h"
#include "tests/actors/fake_model.h"

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

template <class T>
class Channel {
 public:
  void push(T value) {
    {
      const std::lock_guard lock(mutex_);
      values_.push_back(std::move(value));
    }
    wake_.notify_one();
  }
  T next() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return !values_.empty(); });
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<T> values_;
};

struct Head {
  std::string refuse;
  int later = 0;  // so many hellos are refused for the moment
  RendezvousActor store;
  CacheForRanks cache;
  Channel<Hello> hellos;
  Channel<Envelope> to_scheduler, to_cache;
};

SchedulerForRanks::behavior_type fake_scheduler(SchedulerForRanks::pointer, Head* head) {
  return {[head](Hello& hello, WorkerForHead&) {
            head->hellos.push(hello);
            if (head->later > 0) return Welcome{"not yet", head->later-- > 0, {}, {}};
            return Welcome{head->refuse, false, head->cache, head->store};
          },
          [head](Envelope& envelope) { head->to_scheduler.push(std::move(envelope)); }};
}

CacheForRanks::behavior_type fake_cache(CacheForRanks::pointer, Head* head) {
  return {[head](Envelope& envelope) { head->to_cache.push(std::move(envelope)); }};
}

class WorkerTest : public ::testing::Test {
 protected:
  void start() {
    head_.store = system_.spawn(rendezvous_store);
    head_.cache = system_.spawn(fake_cache, &head_);
    scheduler_ = system_.spawn(fake_scheduler, &head_);
    WorkerSetup setup;
    setup.start.rank = 1;
    setup.start.epoch = 3;
    setup.start.options.block_size = 4;
    setup.start.options.max_loras = 2;
    setup.start.options.rank_timeout_ms = timeout_ms_;
    setup.backend = backend_;
    setup.loading = [](int, int) {};
    setup.fatal = [this](const std::string& why) { fatal_.push(why); };
    setup.hung = [this](const std::string& why) { fatal_.push(why); };
    setup.left = [this](uint64_t epoch) { left_.push(epoch); };
    setup.scheduler = scheduler_;
    worker_ = system_.spawn(worker, std::move(setup));
  }

  void start_and_form() {
    start();
    ASSERT_TRUE(is_report<RankLoaded>(head_.to_scheduler.next()));
    tell(GroupOrder(FormGroup{8}));
    ASSERT_TRUE(is_report<RankReady>(head_.to_scheduler.next()));
  }

  template <class Message>
  void tell(const Message& message, uint64_t epoch = 3) {
    caf::anon_send(worker_, envelope_of(message, 1, epoch));
  }

  static engine::StepPlan first_plan() {
    engine::StepPlan plan;
    plan.epoch = engine::Epoch(3);
    plan.step = engine::StepId(1);
    const engine::SequenceId id(1);
    plan.starts.push_back({id, engine::kBaseSlot, {7}, 1, {}});
    plan.blocks.push_back({id, {engine::BlockId(0)}});
    plan.rows.push_back({id, 0, 1, true});
    return plan;
  }

  void TearDown() override {
    backend_->model->ready = true;
    for (const caf::strong_actor_ptr& actor :
         {caf::actor_cast<caf::strong_actor_ptr>(worker_), caf::actor_cast<caf::strong_actor_ptr>(scheduler_),
          caf::actor_cast<caf::strong_actor_ptr>(head_.store), caf::actor_cast<caf::strong_actor_ptr>(head_.cache)}) {
      if (actor) caf::anon_send_exit(actor, caf::exit_reason::user_shutdown);
    }
  }

  int32_t timeout_ms_ = 60'000;
  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  Channel<std::string> fatal_;
  Channel<uint64_t> left_;
  Head head_;
  SystemConfig config_{ServerOptions{}, Networking::none, 2};
  caf::actor_system system_{config_};
  SchedulerForRanks scheduler_;
  WorkerActor worker_;
};

TEST_F(WorkerTest, GoesOnInTheNextEpochWhenItsGroupIsLost) {
  start_and_form();
  EXPECT_EQ(head_.hellos.next().epoch, 3u);
  head_.later = 2;  // it does not know of the next epoch yet
  caf::anon_send(worker_, LeaveGroup{4});
  EXPECT_EQ(left_.next(), 4u);
  for (int hellos = 0; hellos < 3; ++hellos) EXPECT_EQ(head_.hellos.next().epoch, 4u);
  Envelope loaded = head_.to_scheduler.next();
  EXPECT_TRUE(is_report<RankLoaded>(loaded));
  EXPECT_EQ(loaded.epoch, 4u);
  tell(GroupOrder(FormGroup{8}), 3);  // of an epoch that is over
  tell(GroupOrder(FormGroup{8}), 4);
  EXPECT_EQ(head_.to_scheduler.next().epoch, 4u);
  caf::anon_send(worker_, LeaveGroup{4});  // it has
  auto plan = first_plan();
  plan.epoch = engine::Epoch(4);
  tell(plan, 4);
  EXPECT_EQ(message_in<engine::StepResult>(head_.to_scheduler.next()).rows[0].token_id, 1001);
}

TEST_F(WorkerTest, SaysHelloLoadsFormsAndSteps) {
  start_and_form();
  const Hello hello = head_.hellos.next();
  EXPECT_EQ(hello.rank, 1);
  EXPECT_EQ(hello.epoch, 3u);
  EXPECT_EQ(hello.pid, getpid());
  tell(first_plan(), 2);  // of an epoch that is over
  tell(first_plan());
  const Envelope result = head_.to_scheduler.next();
  EXPECT_EQ(result.epoch, 3u);
  EXPECT_EQ(message_in<engine::StepResult>(result).rows[0].token_id, 1001);
}

TEST_F(WorkerTest, EndsWhenTheHeadRefusesIt) {
  head_.refuse = "rank 1 is of epoch 3, the group is of epoch 4";
  start();
  EXPECT_THAT(fatal_.next(), HasSubstr("the head refuses: rank 1 is of epoch 3"));
}

TEST_F(WorkerTest, EndsWhenTheHeadIsLost) {
  start_and_form();
  caf::anon_send_exit(scheduler_, caf::exit_reason::kill);
  EXPECT_THAT(fatal_.next(), HasSubstr("the head is lost"));
  EXPECT_TRUE(backend_->aborted);
}

TEST_F(WorkerTest, EndsWhenItsShardCannotBeLoaded) {
  backend_->load_error = "model.safetensors is cut short";
  start();
  EXPECT_EQ(fatal_.next(), "model.safetensors is cut short");
}

TEST_F(WorkerTest, EndsWhenAStepHangs) {
  timeout_ms_ = 100;
  backend_->model->ready = false;
  start_and_form();
  tell(first_plan());
  EXPECT_THAT(fatal_.next(), HasSubstr("step 1 has not ended in 100 ms"));
}

TEST_F(WorkerTest, AbortsTheCollectiveOfAFencedEpoch) {
  start_and_form();
  tell(GroupOrder(Fence{}));
  caf::anon_send_exit(worker_, caf::exit_reason::user_shutdown);
  caf::scoped_actor self{system_};
  self->wait_for(worker_);
  EXPECT_TRUE(backend_->aborted);
}

TEST_F(WorkerTest, KnowsTheAdaptersThatItsPredecessorHasLeft) {
  backend_->left = {"", "d1"};
  start_and_form();
  tell(AdapterOrder{1, AdapterConfirm{"d1", 1}});
  EXPECT_EQ(report_in<AdapterDone>(head_.to_cache.next()).digest, "d1");
  tell(AdapterOrder{2, AdapterConfirm{"d1", 0}});
  report_in<SliceWanted>(head_.to_cache.next());
  tell(AdapterOrder{3, AdapterClear{1}});
  tell(AdapterOrder{4, AdapterConfirm{"d1", 1}});
  report_in<SliceWanted>(head_.to_cache.next());
}

TEST_F(WorkerTest, TakesAdaptersInBesideItsSteps) {
  start_and_form();
  auto adapter = std::make_shared<StagedAdapter>();
  adapter->digest = "d";
  adapter->slices = {{1, 2, 3}, {1, 2, 3}};
  ChunkWindows windows;
  for (Envelope& envelope : AdapterTransfer(1, 3, 0, adapter, windows, {}).start({})) {
    if (envelope.rank == 1) caf::anon_send(worker_, std::move(envelope));
  }
  report_in<ChunkTaken>(head_.to_cache.next());
  EXPECT_FALSE(report_in<AdapterDone>(head_.to_cache.next()).error.empty()) << "three bytes are no adapter";
}

TEST_F(WorkerTest, EndsWhenTheHeadSaysWhatCannotBeRead) {
  start_and_form();
  Envelope forged = envelope_of(GroupOrder(Fence{}), 1, 3);
  forged.bytes.back() = 7;  // there is no such order
  caf::anon_send(worker_, forged);
  EXPECT_THAT(fatal_.next(), HasSubstr("alternative 7 where 0 .. 3 was expected"));
}

TEST_F(WorkerTest, MeetsOthersThroughTheStoreActor) {
  start();
  const auto rendezvous = make_actor_rendezvous(system_, head_.store);
  rendezvous->set("a", {1, 2});
  EXPECT_EQ(rendezvous->get("a", std::chrono::seconds(10)), (std::vector<uint8_t>{1, 2}));
  try {
    rendezvous->get("never", std::chrono::milliseconds(10));
    FAIL();
  } catch (const comm::CollectiveError& error) {
    EXPECT_EQ(error.failure(), comm::CollectiveFailure::timeout);
    EXPECT_THAT(error.what(), HasSubstr("never"));
  }
  caf::anon_send_exit(head_.store, caf::exit_reason::kill);
  caf::scoped_actor self{system_};
  self->wait_for(head_.store);
  try {
    rendezvous->get("a", std::chrono::seconds(10));
    FAIL();
  } catch (const comm::CollectiveError& error) {
    EXPECT_EQ(error.failure(), comm::CollectiveFailure::peer_lost);
  }
}

}  // namespace
}  // namespace lorikeet::actors
