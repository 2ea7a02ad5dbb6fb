// What becomes of slots when ranks are lost: survivors keep what theirs hold, successors come with empty ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/adapter_slots.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string digest(int i) {
  return "n" + std::to_string(i);
}

class AdapterSlotsLossTest : public ::testing::Test {
 protected:
  void make(AdapterSlots::Limits limits) {
    slots_ = std::make_unique<AdapterSlots>(limits);
    slots_->group_formed();
  }
  void acquire(uint64_t id, int i, uint64_t bytes = 10) {
    slots_->acquire(SequenceId(id), digest(i), staged(digest(i), bytes));
  }
  void release(uint64_t id, int i) { slots_->release(SequenceId(id), digest(i)); }
  // A request comes, has the adapter sent, and ends.
  void use(uint64_t id, int i, uint64_t bytes = 10) {
    acquire(id, i, bytes);
    slots_->sent(digest(i), "");
    release(id, i);
  }
  void next_group() {
    slots_->group_lost();
    slots_->group_formed();
  }
  std::vector<std::string> wishes() {
    std::vector<std::string> lines;
    for (const auto& effect : slots_->take_effects()) {
      if (const auto* send = std::get_if<AdapterSlots::Send>(&effect)) {
        const std::string slot = " " + std::to_string(send->slot);
        lines.push_back((send->confirms ? "confirm " : "send ") + send->adapter->digest + slot);
      } else if (const auto* acquired = std::get_if<AdapterSlots::Acquired>(&effect)) {
        lines.push_back("acquired " + std::to_string(acquired->id.value()) + " " + acquired->error);
      } else if (const auto* clear = std::get_if<AdapterSlots::Clear>(&effect)) {
        lines.push_back("clear " + std::to_string(clear->slot));
      }
    }
    return lines;
  }
  std::unique_ptr<AdapterSlots> slots_;
};

TEST_F(AdapterSlotsLossTest, AsksTheRanksForWhatTheyHadBeforeItIsSentAgain) {
  make({4});
  use(1, 1);
  use(2, 2);
  wishes();
  slots_->group_lost();
  EXPECT_FALSE(slots_->is_resident("n2"));
  EXPECT_EQ(slots_->row("n2").state, "none") << "nobody knows who has it";
  EXPECT_EQ(slots_->row("n2").slot, -1);
  acquire(3, 2);
  EXPECT_THAT(wishes(), IsEmpty());
  slots_->group_formed();
  EXPECT_THAT(wishes(), ElementsAre("confirm n2 1")) << "what nobody wants is not asked for";
  slots_->sent("n2", "");
  EXPECT_THAT(wishes(), ElementsAre("acquired 3 "));
  acquire(4, 1);
  EXPECT_THAT(wishes(), ElementsAre("confirm n1 0")) << "once somebody does";
  next_group();
  wishes();
  slots_->sent("n1", "");
  EXPECT_THAT(wishes(), ElementsAre("acquired 4 ")) << "lost while it was asked for, and asked for again";
  acquire(5, 3);
  EXPECT_THAT(wishes(), ElementsAre("send n3 2"));
}

TEST_F(AdapterSlotsLossTest, SendsAgainWhatHadNotReachedAllRanksAndWhatDependsOnAllOfThem) {
  make({4});
  acquire(1, 1);
  auto dora = std::make_shared<StagedAdapter>(StagedAdapter());
  dora->digest = "dora";
  dora->dora = {{true, {{6}, {6}}}};
  slots_->acquire(SequenceId(2), "dora", dora);
  slots_->sent("dora", "");
  wishes();
  next_group();
  EXPECT_THAT(wishes(), ElementsAre("send n1 0"));
  slots_->acquire(SequenceId(2), "dora", dora);
  EXPECT_THAT(wishes(), ElementsAre("send dora 1"));
}

TEST_F(AdapterSlotsLossTest, GivesSlotsAndBytesThatNobodyWantsToOthers) {
  make({2, 100});
  use(1, 1, 60);
  use(2, 2, 30);
  next_group();
  wishes();
  EXPECT_EQ(slots_->used_bytes(), 90u) << "survivors hold them still";
  acquire(3, 3, 50);
  EXPECT_THAT(wishes(), ElementsAre("clear 0", "send n3 0"));
  acquire(4, 1, 60);
  EXPECT_THAT(wishes(), IsEmpty()) << "there is no room beside n3";
  slots_->sent("n3", "");
  release(3, 3);
  EXPECT_THAT(wishes(), ::testing::Contains("send n1 0")) << "in full: it has lost its slot";
}

TEST_F(AdapterSlotsLossTest, EmptiesWithTheNextGroupWhatWasGivenUpWhileThereWasNone) {
  make({2, 100});
  use(1, 1, 60);
  wishes();
  slots_->group_lost();
  slots_->drop("n1");
  EXPECT_THAT(wishes(), IsEmpty());
  EXPECT_EQ(slots_->used(), 0u);
  acquire(2, 2, 70);
  acquire(3, 1, 20);
  slots_->group_formed();
  EXPECT_THAT(wishes(), ElementsAre("clear 0", "send n2 0", "send n1 1"));
}

TEST_F(AdapterSlotsLossTest, ServesThoseFirstThatHaveKeptTheirSlots) {
  make({1});
  acquire(1, 1);
  slots_->sent("n1", "");
  acquire(2, 2);
  wishes();
  slots_->group_lost();
  acquire(1, 1);
  slots_->group_formed();
  EXPECT_THAT(wishes(), ElementsAre("confirm n1 0")) << "n2 waits for it";
  slots_->sent("n1", "");
  EXPECT_THAT(wishes(), ElementsAre("acquired 1 "));
  release(1, 1);
  EXPECT_THAT(wishes(), ElementsAre("send n2 0"));
}

TEST_F(AdapterSlotsLossTest, RollsBackEverywhereWhereARankThatLacksItRefuses) {
  make({2});
  use(1, 1);
  next_group();
  acquire(2, 1);
  wishes();
  slots_->sent("n1", "rank 1: out of memory");
  EXPECT_THAT(wishes(), ElementsAre("clear 0", "acquired 2 rank 1: out of memory"));
  acquire(3, 1);
  EXPECT_THAT(wishes(), ElementsAre("send n1 0"));
}

TEST_F(AdapterSlotsLossTest, EmptiesWithTheNextGroupWhatRanksMayNotHaveHeardOf) {
  make({2, 100});
  use(1, 1, 60);
  use(2, 2, 30);
  acquire(3, 3, 60);
  EXPECT_THAT(wishes(), ::testing::Contains("clear 0"));
  slots_->group_lost();  // survivors hold n1 or n3 there, or a part of it
  slots_->group_formed();
  EXPECT_THAT(wishes(), ElementsAre("clear 0", "send n3 0"));
  slots_->sent("n3", "");
  wishes();
  next_group();
  EXPECT_THAT(wishes(), IsEmpty()) << "now they hold what is known";
}

// Two ranks that do what they were told, one order after the other, of whom some die at each loss.
class RandomLosses {
 public:
  explicit RandomLosses(uint32_t seed) : random_(seed) {}

  void run() {
    for (int step = 0; step < 400; ++step) {
      take_step();
      check();
    }
    may_refuse_ = false;
    if (!group_) form();
    for (int round = 0; round < 1'000 && !requests_.empty(); ++round) {
      for (Rank& rank : ranks_) {
        while (!rank.orders.empty()) work(rank);
      }
      const auto done = std::find_if(requests_.begin(), requests_.end(), [](const auto& r) { return r.second.leased; });
      if (done != requests_.end()) end(done);
    }
    EXPECT_TRUE(requests_.empty()) << "somebody waits for ever";
  }
  int kept() const { return kept_; }

 private:
  static constexpr uint64_t kBudget = 100;
  struct Request {
    int content = 0;
    bool leased = false;
    int32_t slot = -1;
  };
  struct Rank {
    std::map<int32_t, std::string> held;
    std::deque<AdapterSlots::Effect> orders;
  };

  uint32_t below(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }
  static uint64_t bytes_of(int content) { return 10 + 7 * static_cast<uint64_t>(content); }
  static uint64_t bytes_of(const std::string& digest) { return bytes_of(std::stoi(digest.substr(1))); }

  void acquire(uint64_t id) {
    const int content = requests_.at(id).content;
    slots_.acquire(SequenceId(id), digest(content), staged(digest(content), bytes_of(content)));
  }

  void take_step() {
    const uint32_t what = below(16);
    if (what < 4) {
      requests_[++next_].content = static_cast<int>(below(8));
      acquire(next_);
    } else if (what < 12) {
      Rank& rank = ranks_[below(2)];
      if (!rank.orders.empty()) work(rank);
    } else if (what < 14) {
      if (requests_.empty()) return;
      end(std::next(requests_.begin(), below(static_cast<uint32_t>(requests_.size()))));
    } else if (what == 14) {
      const int content = static_cast<int>(below(8));
      const bool wanted = std::any_of(requests_.begin(), requests_.end(),
                                      [&](const auto& request) { return request.second.content == content; });
      if (!wanted) slots_.drop(digest(content));
    } else if (below(3) == 0) {
      group_ ? lose() : form();
    }
    collect();
  }

  void end(std::map<uint64_t, Request>::iterator it) {
    slots_.release(SequenceId(it->first), digest(it->second.content));
    requests_.erase(it);
    collect();
  }

  // The rank does what it was told first. Whether it refuses that.
  bool obey(Rank& rank, const AdapterSlots::Effect& order) {
    if (const auto* clear = std::get_if<AdapterSlots::Clear>(&order)) {
      rank.held.erase(clear->slot);
      return false;
    }
    const auto& send = std::get<AdapterSlots::Send>(order);
    std::string& held = rank.held[send.slot];
    if (send.confirms && held == send.adapter->digest) {
      ++kept_;
      return false;
    }
    held = send.adapter->digest;
    if (!may_refuse_ || below(8) > 0) return false;
    rank.held.erase(send.slot);
    return true;
  }

  void work(Rank& rank) {
    const AdapterSlots::Effect order = rank.orders.front();
    rank.orders.pop_front();
    const bool refused = obey(rank, order);
    if (const auto* send = std::get_if<AdapterSlots::Send>(&order)) {
      const auto it = answers_.find(send->transfer);
      if (it == answers_.end()) return;  // the other rank has refused it
      if (!refused && ++it->second < ranks_.size()) return;
      answers_.erase(it);
      slots_.sent(send->adapter->digest, refused ? "a rank refuses" : "");
    }
    collect();
  }

  void lose() {
    group_ = false;
    answers_.clear();
    for (Rank& rank : ranks_) {
      for (uint32_t left = below(static_cast<uint32_t>(rank.orders.size()) + 1); left > 0; --left) {
        obey(rank, rank.orders.front());
        rank.orders.pop_front();
      }
      rank.orders.clear();
      if (below(2) == 0) rank.held.clear();
    }
    slots_.group_lost();
    for (auto& [id, request] : requests_) {
      if (std::exchange(request.leased, false)) acquire(id);
    }
  }

  void form() {
    group_ = true;
    slots_.group_formed();
    collect();
  }

  void collect() {
    for (auto& effect : slots_.take_effects()) {
      const auto* send = std::get_if<AdapterSlots::Send>(&effect);
      if (send != nullptr) answers_[send->transfer] = 0;
      if (send != nullptr || std::holds_alternative<AdapterSlots::Clear>(effect)) {
        ASSERT_TRUE(group_);
        for (Rank& rank : ranks_) rank.orders.push_back(effect);
      } else if (const auto* acquired = std::get_if<AdapterSlots::Acquired>(&effect)) {
        const auto it = requests_.find(acquired->id.value());
        ASSERT_NE(it, requests_.end());
        if (acquired->error.empty()) {
          it->second.leased = true;
          it->second.slot = acquired->slot.value();
        } else {
          requests_.erase(it);
        }
      }
    }
  }

  void check() {
    for (const Rank& rank : ranks_) {
      uint64_t bytes = 0;
      for (const auto& [slot, held] : rank.held) bytes += bytes_of(held);
      EXPECT_LE(bytes, kBudget);
      for (const auto& [id, request] : requests_) {
        if (!request.leased) continue;
        const auto held = rank.held.find(request.slot);
        ASSERT_NE(held, rank.held.end()) << "request " << id;
        EXPECT_EQ(held->second, digest(request.content)) << "request " << id;
      }
    }
    EXPECT_LE(slots_.used_bytes(), kBudget);
  }

  std::mt19937 random_;
  AdapterSlots slots_{AdapterSlots::Limits{4, kBudget}};
  std::array<Rank, 2> ranks_;
  std::map<uint64_t, size_t> answers_;  // of ranks, by transfer
  std::map<uint64_t, Request> requests_;
  bool group_ = false, may_refuse_ = true;
  uint64_t next_ = 0;
  int kept_ = 0;
};

TEST(AdapterSlotsLoss, LeavesEveryLeaseWithItsContentOnAllRanksAndNoRankWithTooMuch) {
  int kept = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    RandomLosses history(seed);
    history.run();
    kept += history.kept();
  }
  EXPECT_GT(kept, 200) << "survivors have kept what they had";
}

}  // namespace
}  // namespace lorikeet::actors
