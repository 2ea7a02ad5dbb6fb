#include "actors/head/scheduler.h"

#include <gmock/gmock.h>

#include <functional>
#include <map>

#include "comm/codec/json_codec.h"
#include "tests/actors/actor_test.h"
#include "tests/actors/envelopes.h"

namespace lorikeet::actors {
namespace {

using engine::ErrorCode;
using engine::FinishReason;
using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What the actors around the scheduler have heard. The cache answers when the test says so.
struct Around {
  std::vector<std::vector<Envelope>> ranks = std::vector<std::vector<Envelope>>(2);
  std::vector<engine::Event> events;
  std::vector<std::string> cache;
  std::map<uint64_t, caf::typed_response_promise<AdapterResolved>> resolving;
  std::map<uint64_t, caf::typed_response_promise<SlotAcquired>> acquiring;
  std::vector<ChildReport> supervisor;
  std::function<void()> work;  // of the cache, at its next Tick: only an actor may keep its promises
};

class SchedulerTest : public ActorTest {
 protected:
  void SetUp() override {
    options_.tensor_parallel_size = 2;
    options_.max_num_seqs = 4;
    options_.max_num_queued_reqs = 3;
    options_.block_size = 4;
  }

  void start() {
    SchedulerSetup setup;
    setup.options = options_;
    setup.max_model_len = 64;
    setup.vocab_size = 100;
    setup.rank_of = rank_of_;
    setup.cache = cache_ = system_.spawn(fake_cache, around_);
    setup.to_supervisor = [around = around_](const ChildReport& report) { around->supervisor.push_back(report); };
    scheduler_ = system_.spawn(scheduler, setup);
    gateway_ = system_.spawn(fake_gateway, around_);
    tell(scheduler_, Serve{gateway_, "tcp://here"});
  }

  void TearDown() override {
    while (!around_->resolving.empty()) resolve(around_->resolving.begin()->first, {"", "the test is over"});
    while (!around_->acquiring.empty()) acquire(around_->acquiring.begin()->first, {engine::kBaseSlot, "over"});
    end(scheduler_);
    end(cache_);
    end(gateway_);
    for (auto& worker : workers_) end(worker);
  }

  // ---- the actors around it

  static GatewayActor::behavior_type fake_gateway(GatewayActor::pointer, std::shared_ptr<Around> around) {
    return {[](ClientSaid&) {},
            [](ClientGone&) {},
            [around](EngineEvents& batch) {
              for (auto& event : *batch.events) around->events.push_back(event);
            },
            [](StopServing&) {},
            [](const Drain&) { return true; },
            [](Tick) {},
            [](Pulse) { return true; }};
  }

  static WorkerForHead::behavior_type fake_worker(WorkerForHead::pointer, std::shared_ptr<Around> around, size_t rank) {
    return {[around, rank](Envelope& envelope) { around->ranks[rank].push_back(std::move(envelope)); }};
  }

  static AdapterCacheActor::behavior_type fake_cache(AdapterCacheActor::pointer self, std::shared_ptr<Around> around) {
    const auto note = [around](const std::string& line) { around->cache.push_back(line); };
    return {[](Envelope&) {},
            [=](const ResolveAdapter& ask) -> caf::result<AdapterResolved> {
              note("resolve " + ask.name);
              return around->resolving[ask.id.value()] = self->make_response_promise<AdapterResolved>();
            },
            [=](const UnclaimAdapter& over) { note("unclaim " + std::to_string(over.id.value())); },
            [=](const AcquireSlot& ask) -> caf::result<SlotAcquired> {
              note("acquire " + ask.digest);
              return around->acquiring[ask.id.value()] = self->make_response_promise<SlotAcquired>();
            },
            [=](const ReleaseSlot& over) { note("release " + over.digest); },
            [=](const GroupFormed& group) { note("formed " + std::to_string(group.epoch)); },
            [=](const GroupLost& group) { note("lost " + std::to_string(group.epoch)); },
            [](AdapterSource::Checked&) {},
            [](AdapterSource::Staged&) {},
            [](const AdapterSource::Located&) {},
            [](const ChangeAdapter&) { return AdapterChanged{}; },
            [](FactorsMade&) {},
            [around](Tick) { around->work(); },
            [](const StatusQuery&) { return AdaptersStatus{}; },
            [](Pulse) { return true; }};
  }

  // ---- what they do

  Welcome hello(int32_t rank, uint64_t epoch = 1) {
    auto& worker = workers_[static_cast<size_t>(rank)];
    worker = system_.spawn(fake_worker, around_, static_cast<size_t>(rank));
    Hello words{rank, 100 * static_cast<int32_t>(epoch) + rank, epoch, "host", "cpu"};
    return ask<Welcome>(scheduler_, std::move(words), worker);
  }

  void report(int32_t rank, const GroupReport& report, uint64_t epoch = 1) {
    say_as(rank, envelope_of(report, rank, epoch));
  }

  void say_nonsense(int32_t rank) { say_as(rank, {EnvelopeStream::steps, rank, 1, 0, true, {1, 2, 3}}); }

  // As the worker of a rank.
  void say_as(int32_t rank, Envelope envelope) {
    tell_as(workers_[static_cast<size_t>(rank)], scheduler_, std::move(envelope));
  }

  // What the supervisor was told last.
  template <class Report>
  Report told() {
    const ChildReport& last = around_->supervisor.back();
    EXPECT_TRUE(std::holds_alternative<Report>(last));
    return std::holds_alternative<Report>(last) ? std::get<Report>(last) : Report{};
  }

  void form(uint64_t epoch = 1, int32_t num_blocks = 32) {
    for (int32_t rank : {0, 1}) ASSERT_EQ(hello(rank, epoch).refused, "");
    for (int32_t rank : {0, 1}) report(rank, RankLoaded{num_blocks - rank, 1, 1}, epoch);
    for (int32_t rank : {0, 1}) report(rank, RankReady{}, epoch);
  }

  void submit(uint64_t id, const std::string& adapter = "", int32_t max_tokens = 8) {
    auto request = std::make_shared<engine::Request>();
    request->id = SequenceId(id);
    request->prompt = {1, 2, 3};
    request->adapter = adapter;
    request->sampling.max_tokens = max_tokens;
    tell(scheduler_, Submit{request});
  }

  void resolve(uint64_t id, AdapterResolved answer) {
    around_->work = [&] { around_->resolving.extract(id).mapped().deliver(std::move(answer)); };
    tell(cache_, Tick{});
  }
  void acquire(uint64_t id, SlotAcquired answer) {
    around_->work = [&] { around_->acquiring.extract(id).mapped().deliver(std::move(answer)); };
    tell(cache_, Tick{});
  }

  std::vector<engine::StepPlan> plans(size_t rank) {
    std::vector<engine::StepPlan> found;
    for (const Envelope& envelope : around_->ranks[rank]) {
      if (envelope.stream == EnvelopeStream::steps) found.push_back(message_in<engine::StepPlan>(envelope));
    }
    return found;
  }

  template <class Order>
  size_t count(size_t rank) {
    const auto& heard = around_->ranks[rank];
    return static_cast<size_t>(std::count_if(heard.begin(), heard.end(), is_order<Order>));
  }

  void answer(const engine::StepPlan& plan, int32_t rank, int32_t token = 7, uint64_t epoch = 1) {
    engine::StepResult result;
    result.epoch = plan.epoch;
    result.step = plan.step;
    result.rank = rank;
    result.times = times_of(plan, rank);
    for (const engine::StepRow& row : plan.rows) {
      engine::RowResult to;
      to.id = row.id;
      if (row.sample) to.token_id = token;
      result.rows.push_back(to);
    }
    say_as(rank, envelope_of(result, rank, epoch, plan.step.value()));
  }

  // Both ranks answer every plan until there is none left.
  void play_to_the_end(uint64_t epoch = 1) {
    while (played_ < plans(0).size()) {
      const auto plan = plans(0)[played_++];
      for (int32_t rank : {0, 1}) answer(plan, rank, 7, epoch);
    }
  }

  // Times that depend on the rank, so that a test sees whose were taken.
  static engine::StepTimes times_of(const engine::StepPlan& plan, int32_t rank) {
    const bool decode = std::all_of(plan.rows.begin(), plan.rows.end(), [](const auto& row) { return row.count == 1; });
    return {static_cast<uint64_t>(100 + rank), static_cast<uint64_t>(10 + rank), decode};
  }

  nlohmann::json status() { return comm::to_json_value(ask<ServingStatus>(scheduler_, StatusQuery{})); }

  std::vector<std::string> ends() {
    std::vector<std::string> lines;
    for (const auto& event : around_->events) {
      if (const auto* finish = std::get_if<engine::FinishEvent>(&event)) {
        lines.push_back("finish " + std::to_string(finish->id.value()));
      } else if (const auto* failure = std::get_if<engine::Boxed<engine::FailEvent>>(&event)) {
        lines.push_back(std::string(name_of(failure->event->error.code)) + " " + std::to_string(failure->id.value()));
      }
    }
    return lines;
  }

  ServerOptions options_;
  std::function<std::optional<int32_t>(const caf::node_id&)> rank_of_;
  std::shared_ptr<Around> around_ = std::make_shared<Around>();
  AdapterCacheActor cache_;
  SchedulerActor scheduler_;
  GatewayActor gateway_;
  std::array<WorkerForHead, 2> workers_;
  size_t played_ = 0;
};

TEST_F(SchedulerTest, SumsUpWhatStepsTookOnRankZero) {
  start();
  form();
  submit(1, "", 4);
  play_to_the_end();
  const auto steps = status()["steps"];
  EXPECT_EQ(steps["prefill_steps"], 1);
  EXPECT_EQ(steps["prefill_ns"], 100);
  EXPECT_EQ(steps["decode_steps"], plans(0).size() - 1);
  EXPECT_EQ(steps["decode_ns"], 100 * (plans(0).size() - 1));
  EXPECT_EQ(steps["decode_idle_ns"], 10 * (plans(0).size() - 1));
}

TEST_F(SchedulerTest, FormsTheGroupWithTheBlocksThatAllRanksHold) {
  start();
  form();
  ASSERT_EQ(count<FormGroup>(1), 1u);
  EXPECT_EQ(std::get<FormGroup>(message_in<GroupOrder>(around_->ranks[1][0])).num_blocks, 31);
  EXPECT_THAT(around_->cache, ElementsAre("formed 1"));
  ASSERT_EQ(around_->supervisor.size(), 2u);
  EXPECT_EQ(std::get<control::Progress>(around_->supervisor[0]).line, "KV cache holds 124 tokens (31 blocks of 4)");
  EXPECT_EQ(told<control::Ready>().address, "tcp://here");
  EXPECT_EQ(status()["kv_cache_tokens"], 124);
  EXPECT_TRUE(status()["serving"]);
  EXPECT_EQ(status()["ranks"][1]["pid"], 101);
}

TEST_F(SchedulerTest, BelievesARankOnlyOverItsOwnConnection) {
  rank_of_ = [](const caf::node_id&) { return std::optional<int32_t>(1); };
  start();
  EXPECT_THAT(hello(0).refused, HasSubstr("not rank 0"));
  EXPECT_EQ(hello(1).refused, "");
}

TEST_F(SchedulerTest, BelievesEnvelopesOfARankOnlyFromItsOwnWorker) {
  start();
  for (int32_t rank : {0, 1}) ASSERT_EQ(hello(rank).refused, "");
  const Envelope loaded = envelope_of(GroupReport(RankLoaded{8, 1, 1}), 0, 1);
  say_as(1, loaded);
  tell(scheduler_, loaded);
  EXPECT_EQ(status()["ranks"][0]["state"], "loading");
  say_as(0, loaded);
  EXPECT_EQ(status()["ranks"][0]["state"], "loaded");
}

TEST_F(SchedulerTest, RefusesOtherEpochs) {
  start();
  EXPECT_THAT(hello(0, 2).refused, HasSubstr("epoch 2"));
  EXPECT_EQ(hello(0, 1).refused, "");
}

TEST_F(SchedulerTest, SendsThePlanOfTheNextStepBeforeTheResultOfThePresentOne) {
  start();
  form();
  submit(1);
  ASSERT_EQ(plans(0).size(), 2u);
  EXPECT_EQ(plans(0), plans(1));
  EXPECT_EQ(plans(0)[1].rows[0].start, 3) << "it takes the token that the first plan draws";
  EXPECT_EQ(status()["engine"]["plans_in_flight"], 2);
  answer(plans(0)[0], 0);
  EXPECT_EQ(plans(0).size(), 2u) << "rank 1 has not answered";
  answer(plans(0)[0], 1);
  EXPECT_EQ(plans(0).size(), 3u);
  EXPECT_GE(status()["engine"]["plans_sent_ahead"], 2);
}

TEST_F(SchedulerTest, TellsTheGatewayWhatHappensToARequest) {
  start();
  form();
  submit(1, "", 3);
  play_to_the_end();
  ASSERT_EQ(around_->events.size(), 4u);
  EXPECT_EQ(std::get<engine::TokenEvent>(around_->events[0]).token_id, 7);
  EXPECT_EQ(std::get<engine::FinishEvent>(around_->events[3]).reason, FinishReason::length);
}

TEST_F(SchedulerTest, LeasesAdaptersAndGivesThemBack) {
  start();
  form();
  submit(1, "moby", 2);
  EXPECT_THAT(around_->cache, ElementsAre("formed 1", "resolve moby"));
  EXPECT_THAT(plans(0), IsEmpty());
  resolve(1, AdapterResolved{"digest", ""});
  EXPECT_EQ(around_->cache.back(), "acquire digest");
  acquire(1, SlotAcquired{engine::SlotId(2), "", 1});
  ASSERT_FALSE(plans(0).empty());
  EXPECT_EQ(plans(0)[0].starts[0].slot, engine::SlotId(2));
  play_to_the_end();
  EXPECT_THAT(ends(), ElementsAre("finish 1"));
  EXPECT_THAT(around_->cache, ::testing::Contains("release digest"));
  EXPECT_THAT(around_->cache, ::testing::Contains("unclaim 1"));
}

TEST_F(SchedulerTest, ServesOthersWhileAnAdapterIsOnItsWay) {
  start();
  form();
  submit(1, "moby");
  submit(2, "", 3);
  play_to_the_end();
  EXPECT_THAT(ends(), ElementsAre("finish 2"));
  EXPECT_EQ(status()["queues"]["reading_adapters"], 1);
}

TEST_F(SchedulerTest, FailsARequestWhoseAdapterCannotBeServed) {
  start();
  form();
  submit(1, "moby");
  resolve(1, AdapterResolved{"", "no lora_B"});
  EXPECT_THAT(ends(), ElementsAre("adapter_failed 1"));
  submit(2, "kjv");
  resolve(2, AdapterResolved{"digest", ""});
  acquire(2, SlotAcquired{engine::kBaseSlot, "rank 1: no memory", 1});
  EXPECT_THAT(ends(), ElementsAre("adapter_failed 1", "adapter_failed 2"));
  EXPECT_THAT(around_->cache, ::testing::Contains("unclaim 2"));
}

TEST_F(SchedulerTest, EndsARequestThatIsCancelledBeforeTheEngineHasIt) {
  start();
  submit(1, "moby");
  submit(2);
  tell(scheduler_, Finish{SequenceId(1), FinishReason::abort});
  tell(scheduler_, Finish{SequenceId(2), FinishReason::abort});
  EXPECT_THAT(ends(), ElementsAre("finish 1", "finish 2"));
  EXPECT_THAT(around_->cache, ::testing::Contains("unclaim 1"));
  resolve(1, AdapterResolved{"digest", ""});
  form();
  EXPECT_THAT(plans(0), IsEmpty());
}

TEST_F(SchedulerTest, RefusesAtOnceWhatIsPastTheQueue) {
  start();
  for (uint64_t id = 1; id <= 5; ++id) submit(id, id % 2 == 0 ? "moby" : "");
  EXPECT_THAT(ends(), ElementsAre("queue_full 4", "queue_full 5"));
}

TEST_F(SchedulerTest, HoldsRequestsUntilTheGroupServes) {
  start();
  submit(1, "", 2);
  form();
  play_to_the_end();
  EXPECT_THAT(ends(), ElementsAre("finish 1"));
}

TEST_F(SchedulerTest, FencesTheEpochAtOnceWhenARankDies) {
  start();
  form();
  submit(1);
  submit(2, "moby");
  end(workers_[1]);
  EXPECT_THAT(ends(), IsEmpty()) << "the requests wait for the next epoch";
  EXPECT_EQ(count<Fence>(0), 1u);
  EXPECT_THAT(around_->cache, ::testing::Contains("lost 1"));
  EXPECT_THAT(told<control::GroupLost>().why, HasSubstr("rank 1 (process 101) is gone"));
  EXPECT_EQ(told<control::GroupLost>().epoch, 1u);
  EXPECT_FALSE(status()["serving"]);
}

TEST_F(SchedulerTest, GoesOnInTheNextEpochWithWhatRanAndWhatArrivedMeanwhile) {
  start();
  form();
  submit(1, "", 3);
  answer(plans(0)[0], 0);
  answer(plans(0)[0], 1);
  ASSERT_EQ(around_->events.size(), 1u);
  end(workers_[1]);
  submit(2, "", 2);
  const auto before = plans(0).size();
  tell(scheduler_, SupervisorSaid{{2, "rank 1 was killed by signal 9"}});
  form(2);
  ASSERT_GT(plans(0).size(), before);
  EXPECT_EQ(plans(0)[before].epoch, engine::Epoch(2));
  EXPECT_THAT(plans(0)[before].starts[0].token_ids, ElementsAre(1, 2, 3, 7));
  played_ = before;
  play_to_the_end(2);
  EXPECT_THAT(ends(), ElementsAre("finish 1", "finish 2"));
  EXPECT_EQ(around_->events.size(), 7u) << "three tokens and two, each once, and two ends";
  EXPECT_THAT(around_->cache, ::testing::Contains("formed 2"));
  told<control::Ready>();
}

TEST_F(SchedulerTest, TakesNoSlotOfAnEpochThatIsOver) {
  start();
  form();
  submit(1, "moby", 2);
  resolve(1, AdapterResolved{"digest", ""});
  ASSERT_EQ(around_->cache.back(), "acquire digest");
  end(workers_[1]);
  EXPECT_EQ(around_->cache.back(), "release digest") << "nobody waits for it now";
  acquire(1, SlotAcquired{engine::SlotId(3), "", 1});
  tell(scheduler_, SupervisorSaid{{2, "rank 1 was killed by signal 9"}});
  const auto before = plans(0).size();
  form(2);
  EXPECT_EQ(around_->cache.back(), "acquire digest");
  EXPECT_EQ(plans(0).size(), before);
  acquire(1, SlotAcquired{engine::SlotId(0), "", 2});
  ASSERT_GT(plans(0).size(), before);
  EXPECT_EQ(plans(0)[before].starts[0].slot, engine::SlotId(0));
}

TEST_F(SchedulerTest, BelievesTheSupervisorThatARankIsDead) {
  start();
  form();
  submit(1);
  tell(scheduler_, SupervisorSaid{{2, "rank 1 was killed by signal 9"}});
  ASSERT_EQ(count<Fence>(0), 1u);
  EXPECT_EQ(around_->ranks[0].back().epoch, 1u) << "the fence is for those of the epoch that is over";
  EXPECT_EQ(status()["epoch"], 2);
}

TEST_F(SchedulerTest, HearsNothingFromAnEpochThatIsOver) {
  start();
  form();
  submit(1);
  const auto plan = plans(0)[0];
  tell(scheduler_, SupervisorSaid{{2, "rank 1 died"}});
  answer(plan, 0);
  answer(plan, 1);
  report(0, RankReady{});
  EXPECT_THAT(around_->events, IsEmpty());
  EXPECT_EQ(status()["ranks"][0]["state"], "absent");
}

TEST_F(SchedulerTest, GivesTheGroupUpWhenRanksDisagree) {
  start();
  form();
  submit(1);
  answer(plans(0)[0], 0, 7);
  answer(plans(0)[0], 1, 8);
  EXPECT_THAT(ends(), IsEmpty());
  EXPECT_THAT(told<control::GroupLost>().why, HasSubstr("ranks 0 and 1 disagree"));
}

TEST_F(SchedulerTest, GivesTheGroupUpWhenARankCannotCompute) {
  start();
  form();
  submit(1);
  engine::StepResult failed;
  failed.step = plans(0)[0].step;
  failed.error = "rank 1 is lost";
  say_as(0, envelope_of(failed, 0, 1));
  EXPECT_THAT(told<control::GroupLost>().why, HasSubstr("rank 0: rank 1 is lost"));
  say_nonsense(0);
  EXPECT_EQ(around_->supervisor.size(), 3u) << "once is enough";
}

TEST_F(SchedulerTest, GivesTheGroupUpOnNonsense) {
  start();
  form();
  say_nonsense(1);
  told<control::GroupLost>();
}

TEST_F(SchedulerTest, GivesTheGroupUpWhenRanksDoNotAnswerInTime) {
  options_.rank_timeout_ms = 10'000;
  start();
  form();
  submit(1);
  answer(plans(0)[0], 0);
  advance(std::chrono::seconds(9));
  told<control::Ready>();
  for (int i = 0; i < 10; ++i) advance(std::chrono::milliseconds(500));
  EXPECT_THAT(told<control::GroupLost>().why, HasSubstr("ranks 1 have not answered"));
}

}  // namespace
}  // namespace lorikeet::actors
