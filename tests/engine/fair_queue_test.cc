#include "engine/fair_queue.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <deque>
#include <random>
#include <tuple>

namespace lorikeet::engine {
namespace {

using ::testing::ElementsAre;

class FairQueueTest : public ::testing::Test {
 protected:
  Sequence& arrive(const std::string& adapter, int32_t prompt_size = 1) {
    Request request;
    request.id = SequenceId(sequences_.size() + 1);
    request.prompt.resize(static_cast<size_t>(prompt_size), 1);
    request.adapter = adapter;
    const GroupId group = queue_.join(adapter);
    Sequence& sequence = sequences_.emplace_back(std::move(request), sequences_.size() + 1, group, Prefix{PrefixId(1)});
    queue_.push(sequence);
    return sequence;
  }

  std::vector<uint64_t> candidates(size_t limit, size_t num_groups = 100) {
    std::vector<WaitingSequence> views;
    std::vector<Sequence*> sequences;
    queue_.list_candidates(num_groups, limit, views, sequences);
    EXPECT_EQ(views.size(), sequences.size());
    std::vector<uint64_t> ids;
    for (const Sequence* sequence : sequences) ids.push_back(sequence->id().value());
    return ids;
  }

  void hold_lease(Sequence& sequence) {
    sequence.hold_lease(SlotId(0));
    queue_.note_lease(sequence);
  }

  int64_t served(GroupId group) const { return queue_.served()[static_cast<size_t>(group.value())]; }

  FairQueue queue_;
  std::deque<Sequence> sequences_;
};

TEST_F(FairQueueTest, ListsTheOldestOfEachGroup) {
  for (int i = 0; i < 3; ++i) arrive("");
  const GroupId group = arrive("a").group();
  for (Sequence* sequence : queue_.ask_leases(group)) hold_lease(*sequence);
  EXPECT_THAT(candidates(2), ElementsAre(1, 2, 4));
  queue_.remove(sequences_[0]);
  EXPECT_THAT(candidates(2), ElementsAre(2, 3, 4));
}

TEST_F(FairQueueTest, ListsTheGroupsThatWereGivenTheLeast) {
  for (const char* adapter : {"a", "b", "c", "d"}) {
    for (Sequence* sequence : queue_.ask_leases(arrive(adapter).group())) hold_lease(*sequence);
  }
  EXPECT_THAT(candidates(9, 2), ElementsAre(1, 2)) << "of equals the lower ones";
  queue_.charge(sequences_[0].group(), 7);
  queue_.charge(sequences_[1].group(), 5);
  EXPECT_THAT(candidates(9, 3), ElementsAre(3, 4, 2));
  queue_.charge(sequences_[2].group(), 6);
  queue_.remove(sequences_[3]);
  EXPECT_THAT(candidates(9, 2), ElementsAre(2, 3));
  EXPECT_EQ(queue_.num_startable(), 3u);
  arrive("e");
  EXPECT_EQ(queue_.num_startable(), 3u) << "its adapter is not there";
}

// The engine shows the policy no more groups than it can get to.
TEST_F(FairQueueTest, LeavesOutNobodyWhomThePolicyWouldAdmit) {
  std::mt19937 random(20261129);
  const auto below = [&random](uint32_t limit) { return static_cast<int32_t>(random() % limit); };
  int left_out = 0;
  for (int round = 0; round < 400; ++round) {
    queue_ = {};
    sequences_.clear();
    const int32_t num_groups = 1 + below(12);
    for (int32_t i = below(60); i-- > 0;) {
      Sequence& sequence = arrive("adapter " + std::to_string(below(static_cast<uint32_t>(num_groups))), 1 + below(40));
      for (Sequence* asking : queue_.ask_leases(sequence.group())) {
        if (below(8) > 0) hold_lease(*asking);
      }
    }
    std::vector<RunningSequence> running;
    const std::vector<BlockId> table(8);
    for (int32_t i = below(6); i-- > 0;) {
      const GroupId group = queue_.join("adapter " + std::to_string(below(static_cast<uint32_t>(num_groups))));
      const int32_t remaining = below(2) == 0 ? 1 : 1 + below(20);
      running.push_back({group, remaining, 10, table});
    }
    for (size_t group = 0; group < queue_.served().size(); ++group) {
      queue_.charge(GroupId(static_cast<int32_t>(group)), 10 * below(4));
    }
    const std::vector<int32_t> counts(1, 1);
    const SchedulerLimits limits{1 + below(12), 12 + below(100), 16};
    SchedulerView view;
    view.running = running;
    view.served = queue_.served();
    view.reference_counts = counts;
    view.free_blocks = below(30);
    view.prefix_hits = [](size_t) { return PrefixHits{}; };
    const auto rows = [&](size_t groups, size_t limit) {
      std::vector<WaitingSequence> waiting;
      std::vector<Sequence*> sequences;
      queue_.list_candidates(groups, limit, waiting, sequences);
      view.waiting = waiting;
      std::vector<std::tuple<bool, uint64_t, int32_t>> named;  // new, which, positions
      for (const ScheduledRow& row : plan_step(view, limits).rows) {
        const auto index = static_cast<size_t>(row.index);
        named.emplace_back(row.is_new, row.is_new ? sequences[index]->id().value() : index, row.count);
      }
      return std::pair(named, sequences.size());
    };
    const auto room =
        static_cast<size_t>(max_admissions(static_cast<int32_t>(running.size()), view.free_blocks, limits));
    const auto begun =
        static_cast<size_t>(std::ranges::count_if(running, [](const auto& one) { return one.remaining > 1; }));
    if (room == 0) continue;
    const auto all = rows(1000, 1000), some = rows(room + begun, room);
    ASSERT_EQ(all.first, some.first) << "round " << round;
    if (some.second < all.second) ++left_out;
  }
  EXPECT_GT(left_out, 50);
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
  hold_lease(*asking[0]);
  EXPECT_THAT(candidates(9), ElementsAre(1));
  hold_lease(*asking[1]);
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
