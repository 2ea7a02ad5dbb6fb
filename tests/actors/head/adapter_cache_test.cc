#include "actors/head/adapter_cache.h"

#include <gmock/gmock.h>

#include "comm/codec/json_codec.h"
#include "tests/actors/actor_test.h"
#include "tests/actors/envelopes.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

FileStamp stamp(int64_t version) {
  return {{version, 10}, {version, 100}};
}

// The disk, as the test wants it. Work that would run on the source's threads runs when the test says so.
struct Disk {
  std::vector<std::string> asked;
  std::vector<std::function<void()>> work;
  std::vector<std::string> blocked;
  std::string key;  // of the adapter that is to be loaded
  int ticks = 0;
  bool idle = false;  // nothing that was asked for has begun
};

class FakeSource final : public AdapterSource {
 public:
  explicit FakeSource(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}
  void check(std::string name, std::string) override { disk_->asked.push_back("check " + name); }
  void read(std::string name, std::string, uint64_t) override { disk_->asked.push_back("read " + name); }
  void locate(std::string key, std::string path) override {
    disk_->asked.push_back("locate " + path);
    disk_->key = key;
  }
  bool cancel(const std::string& name) override {
    disk_->asked.push_back("cancel " + name);
    return disk_->idle;
  }
  void tick(TimePoint) override { ++disk_->ticks; }
  std::vector<std::string> left_behind() const override { return disk_->blocked; }
  void run(std::function<void()> work) override { disk_->work.push_back(std::move(work)); }

 private:
  std::shared_ptr<Disk> disk_;
};

struct Answers {
  std::map<uint64_t, AdapterResolved> resolved;
  std::map<uint64_t, SlotAcquired> acquired;
  std::vector<AdapterChanged> changed;
};

// Plays the scheduler: asks, and keeps the answers.
using AskActor =
    caf::typed_actor<caf::reacts_to<ResolveAdapter>, caf::reacts_to<AcquireSlot>, caf::reacts_to<ChangeAdapter>>;
AskActor::behavior_type asker(AskActor::pointer self, AdapterCacheActor cache, std::shared_ptr<Answers> answers) {
  return {[=](const ResolveAdapter& ask) {
            self->request(cache, caf::infinite, ask).then([=](AdapterResolved& answer) {
              answers->resolved[ask.id.value()] = answer;
            });
          },
          [=](const AcquireSlot& ask) {
            self->request(cache, caf::infinite, ask).then([=](SlotAcquired& answer) {
              answers->acquired[ask.id.value()] = answer;
            });
          },
          [=](const ChangeAdapter& ask) {
            self->request(cache, caf::infinite, ask).then([=](AdapterChanged& answer) {
              answers->changed.push_back(answer);
            });
          }};
}

WorkerForHead::behavior_type fake_worker(WorkerForHead::pointer, std::shared_ptr<std::vector<Envelope>> heard) {
  return {[heard](Envelope& envelope) { heard->push_back(std::move(envelope)); }};
}

class AdapterCacheTest : public ActorTest {
 protected:
  void SetUp() override {
    AdapterCacheSetup setup;
    setup.options.lora_modules = {{"moby", "/moby"}, {"kjv", "/kjv"}};
    setup.options.max_loras = 1;
    setup.options.runtime_lora_updating = true;
    setup.names = names_;
    setup.options.rank_timeout_ms = 10'000;
    setup.descriptors = descriptors_;
    setup.make_source = [disk = disk_](AdapterSource::Callbacks) { return std::make_unique<FakeSource>(disk); };
    cache_ = system_.spawn(adapter_cache, std::move(setup));
    asker_ = system_.spawn(asker, cache_, answers_);
    for (int rank : {0, 1}) workers_.push_back(system_.spawn(fake_worker, heard_[static_cast<size_t>(rank)]));
    run();
  }

  void TearDown() override {
    end(cache_);
    end(asker_);
    for (auto& worker : workers_) end(worker);
  }

  static std::shared_ptr<StagedAdapter> adapter(const std::string& digest) {
    auto made = std::make_shared<StagedAdapter>();
    made->digest = digest;
    made->slices = {{1, 1}, {2, 2}};
    made->bytes = 4;
    return made;
  }

  // A request for an adapter that is found on the disk.
  void resolve(uint64_t id, const std::string& name, std::shared_ptr<const StagedAdapter> found) {
    tell(asker_, ResolveAdapter{SequenceId(id), name});
    tell(cache_, AdapterSource::Checked{name, stamp(1)});
    tell(cache_, AdapterSource::Staged{name, stamp(1), std::move(found)});
  }

  static std::shared_ptr<const comm::AdapterRequest> load(const std::string& name, const std::string& path) {
    return std::make_shared<comm::AdapterRequest>(comm::AdapterRequest{"1", "load", name, path, false});
  }

  void acquire(uint64_t id, const std::string& digest) { tell(asker_, AcquireSlot{SequenceId(id), digest}); }

  void form(uint64_t epoch = 1) { tell(cache_, GroupFormed{epoch, workers_}); }

  void report(int32_t rank, AdapterReport::What what, uint64_t transfer = 1, uint64_t epoch = 1) {
    tell_as(workers_.at(static_cast<size_t>(rank)), cache_,
            envelope_of(AdapterReport{transfer, std::move(what)}, rank, epoch));
  }

  void done(int32_t rank, const std::string& digest, const std::string& error = "", uint64_t transfer = 1,
            uint64_t epoch = 1) {
    report(rank, AdapterDone{digest, error}, transfer, epoch);
  }

  std::vector<std::string> orders(size_t rank) {
    constexpr const char* kNames[] = {"begin", "chunk", "factors", "clear", "region", "confirm"};
    std::vector<std::string> found;
    for (const Envelope& envelope : *heard_[rank]) {
      found.emplace_back(kNames[message_in<AdapterOrder>(envelope).what.index()]);
    }
    return found;
  }

  nlohmann::json row(const std::string& name) {
    const auto status = comm::to_json_value(ask<AdaptersStatus>(cache_, StatusQuery{}));
    for (const auto& r : status["adapters"]) {
      if (r["name"] == name) return r;
    }
    return {};
  }

  AdapterNames names_;
  const std::shared_ptr<DescriptorSenders> descriptors_ = std::make_shared<DescriptorSenders>();
  std::shared_ptr<Disk> disk_ = std::make_shared<Disk>();
  std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
  std::array<std::shared_ptr<std::vector<Envelope>>, 2> heard_ = {std::make_shared<std::vector<Envelope>>(),
                                                                  std::make_shared<std::vector<Envelope>>()};
  std::vector<WorkerForHead> workers_;
  AdapterCacheActor cache_;
  AskActor asker_;
};

TEST_F(AdapterCacheTest, BringsAnAdapterFromTheDiskIntoASlotOfAllRanks) {
  form();
  tell(asker_, ResolveAdapter{SequenceId(1), "moby"});
  EXPECT_THAT(disk_->asked, ElementsAre("check moby"));
  tell(cache_, AdapterSource::Checked{"moby", stamp(1)});
  EXPECT_THAT(disk_->asked, ElementsAre("check moby", "read moby"));
  EXPECT_THAT(answers_->resolved, IsEmpty());
  tell(cache_, AdapterSource::Staged{"moby", stamp(1), std::shared_ptr<const StagedAdapter>(adapter("M"))});
  EXPECT_EQ(answers_->resolved.at(1).digest, "M");
  EXPECT_EQ(row("moby")["host"], "staged");
  acquire(1, "M");
  EXPECT_THAT(orders(0), ElementsAre("begin", "chunk"));
  EXPECT_EQ(order_in<AdapterChunk>(heard_[1]->at(1)).bytes, (std::vector<uint8_t>{2, 2}));
  EXPECT_EQ(row("moby")["slot_state"], "sending");
  done(0, "M");
  EXPECT_THAT(answers_->acquired, IsEmpty()) << "rank 1 has not acknowledged";
  done(1, "M");
  EXPECT_EQ(answers_->acquired.at(1).slot, engine::SlotId(0));
  EXPECT_EQ(row("moby")["slot_state"], "resident");
  EXPECT_EQ(row("moby")["slot"], 0);
  EXPECT_EQ(row("moby")["leases"], 1);
  EXPECT_EQ(row("kjv")["host"], "on_disk");
}

TEST_F(AdapterCacheTest, HandsMemoryToTheRanksThatAreHereAndSendsBytesToOthers) {
  auto ends = make_descriptor_channel().value();
  descriptors_->put(1, std::move(ends.first));
  DescriptorReceiver receiver(std::move(ends.second));
  auto made = adapter("M");
  made->slices.clear();
  auto memory = kernels::ResidentMemory::make("test").value();
  ASSERT_TRUE(memory.write(0, std::vector<uint8_t>{1, 1, 2, 2, 2}));
  ASSERT_TRUE(memory.seal());
  made->region = std::move(memory);
  made->parts = {{0, 2}, {2, 3}};
  form();
  resolve(1, "moby", made);
  acquire(1, "M");
  EXPECT_THAT(orders(0), ElementsAre("begin", "chunk")) << "it is on another host";
  ASSERT_THAT(orders(1), ElementsAre("region"));
  EXPECT_EQ(order_in<AdapterRegion>(heard_[1]->at(0)).bytes, 3u);
  const auto received = kernels::ResidentMemory::attach(receiver.receive(1).value());
  EXPECT_THAT(received.value().bytes(), ElementsAre(1, 1, 2, 2, 2));
  report(1, ChunksWanted{"it was lost"});
  EXPECT_THAT(orders(1), ElementsAre("region", "begin", "chunk"));
  EXPECT_EQ(order_in<AdapterChunk>(heard_[1]->at(2)).bytes, (std::vector<uint8_t>{2, 2, 2}));
  done(0, "M");
  done(1, "M");
  EXPECT_EQ(answers_->acquired.at(1).error, "");
}

TEST_F(AdapterCacheTest, HandsMemoryToTheSuccessorOfARankThatDiedWithIt) {
  auto made = adapter("M");
  made->slices.clear();
  auto memory = kernels::ResidentMemory::make("test").value();
  ASSERT_TRUE(memory.write(0, std::vector<uint8_t>{1, 2}));
  ASSERT_TRUE(memory.seal());
  made->region = std::move(memory);
  made->parts = {{0, 1}, {1, 1}};
  auto first = make_descriptor_channel().value();
  descriptors_->put(0, std::move(first.first));
  form();
  resolve(1, "moby", made);
  acquire(1, "M");
  ASSERT_THAT(orders(0), ElementsAre("region"));
  first.second.reset();  // it dies before it has taken it
  tell(cache_, GroupLost{1});
  auto second = make_descriptor_channel().value();
  descriptors_->put(0, std::move(second.first));
  form(2);
  EXPECT_THAT(orders(0), ElementsAre("region", "region"));
  EXPECT_TRUE(
      DescriptorReceiver(std::move(second.second)).receive(message_in<AdapterOrder>(heard_[0]->back()).transfer));
  EXPECT_THAT(answers_->acquired, IsEmpty());
}

TEST_F(AdapterCacheTest, LoadsAnAdapterAtRunTimeAndAnswersWhenAllRanksHaveIt) {
  form();
  tell(asker_, ChangeAdapter{load("late", "/late")});
  EXPECT_THAT(disk_->asked, ElementsAre("locate /late"));
  tell(cache_, AdapterSource::Located{disk_->key, "/late"});
  tell(cache_, AdapterSource::Checked{disk_->key, stamp(1)});
  tell(cache_, AdapterSource::Staged{disk_->key, stamp(1), std::shared_ptr<const StagedAdapter>(adapter("L"))});
  EXPECT_THAT(orders(0), ElementsAre("begin", "chunk"));
  done(0, "L");
  EXPECT_THAT(answers_->changed, IsEmpty());
  EXPECT_FALSE(names_.contains("late"));
  done(1, "L");
  ASSERT_EQ(answers_->changed.size(), 1u);
  EXPECT_EQ(answers_->changed[0].code, "");
  EXPECT_TRUE(names_.contains("late"));
  EXPECT_EQ(row("late")["slot_state"], "resident");
  tell(asker_, ChangeAdapter{load("bad", "/bad")});
  tell(cache_, AdapterSource::Located{disk_->key, tl::unexpected(AdapterRefusal{"forbidden", "not there"})});
  EXPECT_EQ(answers_->changed.at(1).code, "forbidden");
}

TEST_F(AdapterCacheTest, RollsBackOnAllRanksWhenOneRefuses) {
  form();
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  done(0, "M");
  done(1, "", "no memory");
  EXPECT_EQ(answers_->acquired.at(1).error, "rank 1: no memory");
  for (size_t rank : {size_t{0}, size_t{1}}) {
    const Envelope& last = heard_[rank]->back();
    EXPECT_EQ(order_in<AdapterClear>(last).slot, 0);
    EXPECT_EQ(message_in<AdapterOrder>(last).transfer, 1u);
  }
  EXPECT_EQ(row("moby")["slot_state"], "none");
}

TEST_F(AdapterCacheTest, AddsTheNormsOfDoraOnItsThreadsAndReturnsTheFactors) {
  auto dora = adapter("D");
  dora->dora = {{true, {{6}, {6}}}};
  form();
  resolve(1, "moby", dora);
  acquire(1, "D");
  for (int32_t rank : {0, 1}) {
    const DoraValues norms{{{{rank == 0 ? 1.0F : 3.0F}}}};
    report(rank, norms);
  }
  ASSERT_EQ(disk_->work.size(), 1u);
  EXPECT_EQ(orders(0).back(), "chunk");
  disk_->work[0]();
  run();
  ASSERT_EQ(orders(1).back(), "factors");
  EXPECT_EQ(order_in<DoraValues>(heard_[1]->back()).pairs[0].values, std::vector<float>{3.0F});
  done(0, "D");
  done(1, "D");
  EXPECT_EQ(answers_->acquired.at(1).error, "");
}

TEST_F(AdapterCacheTest, FailsDoraWhoseNormsCannotBe) {
  auto dora = adapter("D");
  dora->dora = {{true, {{6}, {6}}}};
  form();
  resolve(1, "moby", dora);
  acquire(1, "D");
  for (int32_t rank : {0, 1}) {
    report(rank, DoraValues{{{{0.0F}}}});
  }
  disk_->work.at(0)();
  run();
  EXPECT_THAT(answers_->acquired.at(1).error, HasSubstr("squared norm 0"));
}

TEST_F(AdapterCacheTest, GivesUpOnRanksThatDoNotTakeTheAdapter) {
  form();
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  for (int i = 0; i < 9; ++i) advance(std::chrono::seconds(1));
  EXPECT_THAT(answers_->acquired, IsEmpty());
  report(0, ChunkTaken{});
  for (int i = 0; i < 9; ++i) advance(std::chrono::seconds(1));
  EXPECT_THAT(answers_->acquired, IsEmpty()) << "there was progress";
  for (int i = 0; i < 3; ++i) advance(std::chrono::seconds(1));
  EXPECT_THAT(answers_->acquired.at(1).error, HasSubstr("have not taken the adapter in 10000 ms"));
}

TEST_F(AdapterCacheTest, SendsTheAdapterToTheNextGroupWhenOneIsLost) {
  form();
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  tell(cache_, GroupLost{1});
  done(0, "M");
  done(1, "M");
  EXPECT_THAT(answers_->acquired, IsEmpty()) << "of the lost group";
  form(2);
  EXPECT_EQ(heard_[0]->back().epoch, 2u);
  EXPECT_EQ(orders(0).back(), "chunk");
}

TEST_F(AdapterCacheTest, SendsNothingToASurvivorThatHasTheAdapterInItsSlot) {
  form();
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  done(0, "M");
  done(1, "M");
  tell(cache_, GroupLost{1});
  answers_->acquired.clear();
  for (auto& heard : heard_) heard->clear();
  form(2);
  EXPECT_THAT(orders(0), IsEmpty()) << "nobody wants it";
  acquire(1, "M");
  ASSERT_THAT(orders(0), ElementsAre("confirm"));
  EXPECT_THAT(orders(1), ElementsAre("confirm"));
  EXPECT_EQ(order_in<AdapterConfirm>(heard_[0]->at(0)).digest, "M");
  EXPECT_EQ(row("moby")["slot_state"], "sending");
  done(0, "M", "", 2, 2);
  report(1, SliceWanted{}, 2, 2);  // the successor
  EXPECT_THAT(orders(0), ElementsAre("confirm"));
  EXPECT_THAT(orders(1), ElementsAre("confirm", "begin", "chunk"));
  EXPECT_EQ(order_in<AdapterChunk>(heard_[1]->at(2)).bytes, (std::vector<uint8_t>{2, 2}));
  EXPECT_THAT(answers_->acquired, IsEmpty()) << "the successor has not got it";
  done(1, "M", "", 2, 2);
  EXPECT_EQ(answers_->acquired.at(1).slot, engine::SlotId(0));
  EXPECT_EQ(answers_->acquired.at(1).epoch, 2u);
}

TEST_F(AdapterCacheTest, SendsContentThatWasReplacedWhileThereWasNoGroupToAllRanks) {
  form();
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  done(0, "M");
  done(1, "M");
  tell(cache_, GroupLost{1});
  tell(cache_, UnclaimAdapter{SequenceId(1)});
  tell(asker_, ResolveAdapter{SequenceId(2), "moby"});
  tell(cache_, AdapterSource::Checked{"moby", stamp(2)});
  tell(cache_, AdapterSource::Staged{"moby", stamp(2), std::shared_ptr<const StagedAdapter>(adapter("M2"))});
  for (auto& heard : heard_) heard->clear();
  form(2);
  acquire(2, "M2");
  for (size_t rank : {size_t{0}, size_t{1}}) {
    ASSERT_THAT(orders(rank), ElementsAre("begin", "chunk"));
    EXPECT_EQ(order_in<AdapterBegin>(heard_[rank]->at(0)).digest, "M2");
  }
}

TEST_F(AdapterCacheTest, AnswersARequestThatIsOver) {
  tell(asker_, ResolveAdapter{SequenceId(1), "moby"});
  tell(cache_, UnclaimAdapter{SequenceId(1)});
  EXPECT_FALSE(answers_->resolved.at(1).error.empty());
  resolve(2, "kjv", adapter("K"));
  acquire(2, "K");
  tell(cache_, ReleaseSlot{SequenceId(2), "K"});
  EXPECT_FALSE(answers_->acquired.at(2).error.empty());
}

TEST_F(AdapterCacheTest, TellsWhyAnAdapterCannotBeRead) {
  tell(asker_, ResolveAdapter{SequenceId(1), "moby"});
  tell(cache_, AdapterSource::Checked{"moby", stamp(1)});
  tell(cache_, AdapterSource::Staged{"moby", stamp(1), fail("/moby: no lora_B")});
  EXPECT_EQ(answers_->resolved.at(1).error, "/moby: no lora_B");
  EXPECT_EQ(row("moby")["error"], "/moby: no lora_B");
}

TEST_F(AdapterCacheTest, LooksForReplacedFilesWhenARequestComesAndNotWhenItsStatusIsAsked) {
  resolve(1, "moby", adapter("M"));
  disk_->asked.clear();
  EXPECT_EQ(row("moby")["digest"], "M");
  EXPECT_THAT(disk_->asked, IsEmpty());
  tell(asker_, ResolveAdapter{SequenceId(2), "moby"});
  EXPECT_THAT(disk_->asked, ElementsAre("check moby"));
  tell(cache_, AdapterSource::Checked{"moby", stamp(2)});
  EXPECT_THAT(disk_->asked, ElementsAre("check moby", "read moby"));
  tell(cache_, AdapterSource::Staged{"moby", stamp(2), std::shared_ptr<const StagedAdapter>(adapter("M2"))});
  EXPECT_EQ(row("moby")["digest"], "M2");
}

TEST_F(AdapterCacheTest, ReadsNothingForARequestThatIsOver) {
  disk_->idle = true;
  tell(asker_, ResolveAdapter{SequenceId(1), "moby"});
  tell(cache_, UnclaimAdapter{SequenceId(1)});
  EXPECT_THAT(disk_->asked, ElementsAre("check moby", "cancel moby"));
  EXPECT_EQ(row("moby")["host"], "on_disk");
  tell(asker_, ResolveAdapter{SequenceId(2), "moby"});
  EXPECT_EQ(disk_->asked.back(), "check moby");
}

TEST_F(AdapterCacheTest, TellsWhoWaitsForADiskThatDoesNotAnswer) {
  tell(asker_, ResolveAdapter{SequenceId(1), "moby"});
  disk_->blocked = {"moby"};
  tell(cache_, AdapterSource::Checked{"moby", {}, "/moby: not in 15 s"});
  EXPECT_EQ(answers_->resolved.at(1).error, "/moby: not in 15 s");
  EXPECT_EQ(row("moby")["error"], "/moby: not in 15 s");
  EXPECT_EQ(ask<AdaptersStatus>(cache_, StatusQuery{}).blocked, 1u);
  const int ticks = disk_->ticks;
  advance(std::chrono::seconds(1));
  EXPECT_EQ(disk_->ticks, ticks + 1) << "by which the source knows that time passes";
}

TEST_F(AdapterCacheTest, SetsAnAdapterAsideWhoseRequestsEndWithoutAToken) {
  for (uint64_t id : {1, 2, 3}) {
    resolve(id, "moby", adapter("M"));
    EXPECT_EQ(answers_->resolved.at(id).digest, "M");
    tell(cache_, UnclaimAdapter{SequenceId(id), AdapterOutcome::no_token});
  }
  tell(asker_, ResolveAdapter{SequenceId(4), "moby"});
  tell(cache_, AdapterSource::Checked{"moby", stamp(1)});
  EXPECT_THAT(answers_->resolved.at(4).error, HasSubstr("/moby: set aside, since 3 requests in a row"));
  EXPECT_THAT(row("moby")["error"], HasSubstr("set aside"));
}

TEST_F(AdapterCacheTest, BelievesEnvelopesOfARankOnlyFromItsOwnWorker) {
  form();
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  done(0, "M");
  const Envelope of_rank_one = envelope_of(AdapterReport{1, AdapterDone{"M", ""}}, 1, 1);
  tell_as(workers_[0], cache_, of_rank_one);
  tell(cache_, of_rank_one);
  EXPECT_THAT(answers_->acquired, IsEmpty());
  tell_as(workers_[1], cache_, of_rank_one);
  EXPECT_EQ(answers_->acquired.at(1).error, "");
}

TEST_F(AdapterCacheTest, IgnoresWhatDoesNotBelongToATransfer) {
  form();
  done(0, "M", "", 99);
  tell_as(workers_[0], cache_, envelope_of(AdapterReport{1, DoraValues{}}, 7, 1));
  resolve(1, "moby", adapter("M"));
  acquire(1, "M");
  tell_as(workers_[0], cache_, Envelope{EnvelopeStream::adapters, 0, 1, 0, true, {1, 2, 3}});
  EXPECT_THAT(answers_->acquired.at(1).error, HasSubstr("rank 0: ")) << "nonsense from a rank fails the transfer";
}

}  // namespace
}  // namespace lorikeet::actors
