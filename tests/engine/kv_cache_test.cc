#include "engine/kv_cache.h"

#include <gmock/gmock.h>

#include <memory>
#include <numeric>

namespace lorikeet::engine {
namespace {

using ::testing::ElementsAre;

class KvCacheTest : public ::testing::Test {
 protected:
  // A sequence that has all its prompt in a plan.
  std::unique_ptr<Sequence> computed(std::vector<int32_t> prompt, std::string adapter = "", uint64_t salt = 0) {
    auto sequence = waiting(std::move(prompt), std::move(adapter), salt);
    const int32_t num_cached = kv_.share_prefix(*sequence);
    sequence->start(1, num_cached);
    kv_.extend(*sequence, sequence->num_tokens());
    sequence->plan_row(sequence->num_tokens() - num_cached);
    kv_.publish(*sequence);
    return sequence;
  }

  std::unique_ptr<Sequence> waiting(std::vector<int32_t> prompt, std::string adapter = "", uint64_t salt = 0) {
    Request request;
    request.id = SequenceId(++last_id_);
    request.prompt = std::move(prompt);
    request.cache_salt = salt;
    request.adapter = std::move(adapter);
    const Prefix root = kv_.open_root(request.adapter, salt);
    auto sequence = std::make_unique<Sequence>(std::move(request), last_id_, GroupId(0), root);
    if (sequence->lease() == LeaseState::unasked) {
      sequence->set_lease(LeaseState::asked);
      sequence->hold_lease(SlotId(0));
    }
    return sequence;
  }

  static std::vector<int32_t> count_to(int32_t end) {
    std::vector<int32_t> tokens(static_cast<size_t>(end));
    std::iota(tokens.begin(), tokens.end(), 1);
    return tokens;
  }

  uint64_t last_id_ = 0;
  KvCache kv_{8, 4, true};
};

TEST_F(KvCacheTest, SharesFullBlocksOfACommonPrefix) {
  const auto first = computed(count_to(10));
  EXPECT_EQ(kv_.num_free(), 5);
  const auto second = computed({1, 2, 3, 4, 5, 6, 7, 8, 99, 100});
  EXPECT_EQ(kv_.num_free(), 4) << "two shared, one its own";
  EXPECT_EQ(second->table().blocks[0], first->table().blocks[0]);
  EXPECT_EQ(second->table().blocks[1], first->table().blocks[1]);
  EXPECT_NE(second->table().blocks[2], first->table().blocks[2]);
}

TEST_F(KvCacheTest, LeavesTheLastTokenToCompute) {
  const auto first = computed(count_to(8));
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(8))).num_blocks, 1);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9))).num_blocks, 2);
}

TEST_F(KvCacheTest, SaysWhichHitsAreFree) {
  const auto first = computed(count_to(8));
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9))).num_free, 0);
  kv_.release(*first);
  EXPECT_EQ(kv_.num_free(), 8);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9))).num_blocks, 2);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9))).num_free, 2);
}

TEST_F(KvCacheTest, SharesNothingAcrossAdaptersOrSalts) {
  const auto first = computed(count_to(8));
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9), "digest")).num_blocks, 0);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9), "", 1)).num_blocks, 0);
  const auto other = computed(count_to(8), "digest");
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9), "digest")).num_blocks, 2);
}

TEST_F(KvCacheTest, PublishesOnlyWhatIsInAPlanAndKnown) {
  auto sequence = waiting(count_to(8));
  kv_.extend(*sequence, 8);
  sequence->start(1, 0);
  kv_.publish(*sequence);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(20))).num_blocks, 0) << "nothing is in a plan";
  sequence->plan_row(7);
  kv_.publish(*sequence);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(20))).num_blocks, 1);
  sequence->plan_row(1);
  kv_.extend(*sequence, 12);
  for (int i = 0; i < 4; ++i) sequence->plan_row(1);  // four tokens that nobody has seen
  kv_.publish(*sequence);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(20))).num_blocks, 2);
  for (int32_t token = 9; token <= 12; ++token) {
    sequence->row_returned();
    sequence->append_token(token);
  }
  kv_.publish(*sequence);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(20))).num_blocks, 3);
}

TEST_F(KvCacheTest, EvictsWhatBuildsOnAPrefixBeforeThePrefix) {
  const auto first = computed(count_to(16));
  kv_.release(*first);
  const auto second = computed({50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69});
  EXPECT_EQ(second->table().blocks.size(), 5u) << "four were never used, the fifth is evicted";
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(20))).num_blocks, 3);
}

TEST_F(KvCacheTest, PublishesWhatASequenceLeavesBehind) {
  auto sequence = computed(count_to(3));
  sequence->plan_row(1);
  sequence->row_returned();
  sequence->append_token(4);
  sequence->row_returned();
  sequence->append_token(5);
  kv_.release(*sequence);
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(6))).num_blocks, 1) << "a conversation goes on from its answer";
}

TEST_F(KvCacheTest, GivesPromptLogprobsNoHits) {
  const auto first = computed(count_to(8));
  Request request;
  request.id = SequenceId(77);
  request.prompt = count_to(9);
  request.sampling.prompt_logprobs = true;
  Sequence sequence(std::move(request), 7, GroupId(0), kv_.open_root("", 0));
  EXPECT_EQ(kv_.prefix_hits(sequence).num_blocks, 0);
  sequence.take_prompt_logprobs(1, std::vector<float>(8));
  EXPECT_EQ(kv_.prefix_hits(sequence).num_blocks, 2) << "all reported: after a preemption it may share";
}

TEST_F(KvCacheTest, FindsNothingOnceCleared) {
  const auto first = computed(count_to(8));
  kv_.release(*first);
  kv_.clear();
  EXPECT_EQ(kv_.prefix_hits(*waiting(count_to(9))).num_blocks, 0);
}

TEST(KvCache, SharesNothingWhenToldNotTo) {
  KvCache kv(8, 2, false);
  Request request;
  request.prompt = {1, 2, 3};
  Sequence first(request, 1, GroupId(0), kv.open_root("", 0));
  first.start(1, 0);
  kv.extend(first, 3);
  first.plan_row(3);
  kv.publish(first);
  EXPECT_EQ(kv.prefix_hits(Sequence(request, 2, GroupId(0), kv.open_root("", 0))).num_blocks, 0);
}

}  // namespace
}  // namespace lorikeet::engine
