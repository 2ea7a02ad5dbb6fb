#include "engine/fair_queue.h"

#include <gmock/gmock.h>

#include <deque>

namespace lorikeet::engine {
namespace {

using ::testing::ElementsAre;

class FairQueueTest : public ::testing::Test {
 protected:
  Sequence& arrive(const std::string& adapter) {
    Request request;
    request.id = SequenceId(sequences_.size() + 1);
    request.prompt = {1};
    request.adapter = adapter;
    const GroupId group = queue_.join(adapter);
    Sequence& sequence = sequences_.emplace_back(std::move(request), sequences_.size() + 1, group, Prefix{PrefixId(1)});
    queue_.push(sequence);
    return sequence;
  }

  std::vector<uint64_t> candidates(size_t limit) const {
    std::vector<WaitingSequence> views;
    std::vector<Sequence*> sequences;
    queue_.list_candidates(limit, views, sequences);
    EXPECT_EQ(views.size(), sequences.size());
    std::vector<uint64_t> ids;
    for (const Sequence* sequence : sequences) ids.push_back(sequence->id().value());
    return ids;
  }

  int64_t served(GroupId group) const { return queue_.served()[static_cast<size_t>(group.value())]; }

  FairQueue queue_;
  std::deque<Sequence> sequences_;
};

TEST_F(FairQueueTest, ListsTheOldestOfEachGroup) {
  for (int i = 0; i < 3; ++i) arrive("");
  const GroupId group = arrive("a").group();
  for (Sequence* sequence : queue_.ask_leases(group)) sequence->hold_lease(SlotId(0));
  EXPECT_THAT(candidates(2), ElementsAre(1, 2, 4));
  queue_.remove(sequences_[0]);
  EXPECT_THAT(candidates(2), ElementsAre(2, 3, 4));
}

TEST_F(FairQueueTest, PutsPreemptedSequencesFirst) {
  for (int i = 0; i < 3; ++i) arrive("");
  for (const size_t i : {2, 1}) {
    queue_.remove(sequences_[i]);
    sequences_[i].start(i, 0);
  }
  for (const size_t i : {2, 1}) {
    sequences_[i].preempt();
    queue_.push(sequences_[i]);
  }
  EXPECT_THAT(candidates(9), ElementsAre(2, 3, 1));
}

TEST_F(FairQueueTest, ListsNobodyWhoseAdapterIsNotThere) {
  const GroupId group = arrive("a").group();
  arrive("a");
  arrive("b");
  EXPECT_THAT(candidates(9), ElementsAre());
  const auto asking = queue_.ask_leases(group);
  ASSERT_EQ(asking.size(), 2u);
  EXPECT_THAT(candidates(9), ElementsAre());
  asking[0]->hold_lease(SlotId(0));
  EXPECT_THAT(candidates(9), ElementsAre(1));
  asking[1]->hold_lease(SlotId(0));
  EXPECT_THAT(candidates(9), ElementsAre(1, 2));
}

TEST_F(FairQueueTest, SkipsPreemptedSequencesThatWaitForResults) {
  for (int i = 0; i < 2; ++i) arrive("");
  queue_.remove(sequences_[0]);
  sequences_[0].start(1, 0);
  sequences_[0].plan_row(1);
  sequences_[0].preempt();
  queue_.push(sequences_[0]);
  EXPECT_THAT(candidates(9), ElementsAre(2));
  sequences_[0].row_returned();
  sequences_[0].append_token(5);
  EXPECT_THAT(candidates(9), ElementsAre(1, 2));
}

TEST_F(FairQueueTest, AsksForFewLeasesAhead) {
  const size_t ahead = FairQueue::kMaxLeasesAhead;
  for (size_t i = 0; i < ahead + 3; ++i) arrive("a");
  const GroupId group = sequences_[0].group();
  EXPECT_EQ(queue_.ask_leases(group).size(), ahead);
  EXPECT_EQ(queue_.ask_leases(group).size(), 0u);
  queue_.remove(sequences_[0]);
  const auto next = queue_.ask_leases(group);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0], &sequences_[ahead]);
  queue_.remove(sequences_.back());  // one that has not asked
  EXPECT_EQ(queue_.ask_leases(arrive("b").group()).size(), 1u) << "another adapter has its own";
}

TEST_F(FairQueueTest, StartsANewGroupLevelWithTheLeastServed) {
  const GroupId a = queue_.join("a"), b = queue_.join("b");
  queue_.charge(a, 100);
  queue_.charge(b, 40);
  const GroupId c = queue_.join("c");
  EXPECT_EQ(served(c), 40);
  queue_.charge(c, 5);
  queue_.leave(c);
  EXPECT_EQ(served(queue_.join("c")), 40) << "coming back earns and costs nothing";
  EXPECT_EQ(queue_.join("b"), b);
}

TEST_F(FairQueueTest, UsesAGroupsPlaceAgain) {
  const GroupId base = queue_.join("");
  for (int i = 0; i < 100; ++i) queue_.leave(queue_.join("adapter " + std::to_string(i)));
  EXPECT_EQ(queue_.served().size(), 2u);
  queue_.leave(base);
}

}  // namespace
}  // namespace lorikeet::engine
