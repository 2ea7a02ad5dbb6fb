#include "engine/block_pool.h"

#include <gtest/gtest.h>

#include <iterator>
#include <list>
#include <map>
#include <optional>
#include <random>
#include <set>

namespace lorikeet::engine {
namespace {

using Content = BlockPool::Content;

TEST(BlockPool, GivesEachBlockOnce) {
  BlockPool pool(5);
  std::set<BlockId> taken;
  for (int i = 0; i < 5; ++i) taken.insert(pool.take());
  EXPECT_EQ(taken, (std::set<BlockId>{BlockId(0), BlockId(1), BlockId(2), BlockId(3), BlockId(4)}));
  EXPECT_EQ(pool.num_free(), 0);
}

TEST(BlockPool, FreesABlockWithItsLastHolder) {
  BlockPool pool(2);
  const BlockId block = pool.take();
  pool.add_reference(block);
  EXPECT_EQ(pool.reference_count(block), 2);
  EXPECT_FALSE(pool.drop_reference(block, Content::cached));
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.drop_reference(block, Content::cached));
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(BlockPool, TakesUncachedBlocksFirstThenTheLeastRecentlyUsed) {
  BlockPool pool(4);
  for (int i = 0; i < 4; ++i) pool.take();
  pool.drop_reference(BlockId(2), Content::cached);
  pool.drop_reference(BlockId(0), Content::cached);
  pool.drop_reference(BlockId(3), Content::uncached);
  pool.drop_reference(BlockId(1), Content::cached);
  EXPECT_EQ(pool.take(), BlockId(3));
  EXPECT_EQ(pool.take(), BlockId(2));
  EXPECT_EQ(pool.take(), BlockId(0));
  EXPECT_EQ(pool.take(), BlockId(1));
}

TEST(BlockPool, DoesNotGiveAFreeBlockThatSomeoneTookUpAgain) {
  BlockPool pool(3);
  for (int i = 0; i < 3; ++i) pool.take();
  for (int i = 0; i < 3; ++i) pool.drop_reference(BlockId(i), Content::cached);
  pool.add_reference(BlockId(1));
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.take(), BlockId(0));
  EXPECT_EQ(pool.take(), BlockId(2));
  EXPECT_EQ(pool.reference_count(BlockId(1)), 1);
}

// Blocks are taken, taken up again and dropped so often that void places are cleared up many times.
TEST(BlockPool, AgreesWithAList) {
  constexpr int32_t kBlocks = 7;
  BlockPool pool(kBlocks);
  std::list<int32_t> free;
  std::map<int32_t, int32_t> held;
  for (int32_t block = 0; block < kBlocks; ++block) free.push_back(block);
  std::mt19937 random(1);
  for (int step = 0; step < 20'000; ++step) {
    const auto what = random() % 4;
    if (what == 0 && !free.empty()) {
      ASSERT_EQ(pool.take(), BlockId(free.front()));
      held[free.front()] = 1;
      free.pop_front();
    } else if (what == 1) {
      const auto block = static_cast<int32_t>(random() % kBlocks);
      pool.add_reference(BlockId(block));
      free.remove(block);
      ++held[block];
    } else if (!held.empty()) {
      const auto it = std::next(held.begin(), static_cast<ptrdiff_t>(random() % held.size()));
      const int32_t block = it->first;
      const auto content = random() % 4 == 0 ? Content::uncached : Content::cached;
      const bool last = --it->second == 0;
      ASSERT_EQ(pool.drop_reference(BlockId(block), content), last);
      if (!last) continue;
      held.erase(it);
      free.insert(content == Content::uncached ? free.begin() : free.end(), block);
    }
    ASSERT_EQ(pool.num_free(), static_cast<int32_t>(free.size()));
  }
}

TEST(BlockPool, KnowsWhichBlocksAreTakenNext) {
  BlockPool pool(3);
  for (int i = 0; i < 3; ++i) pool.take();
  EXPECT_EQ(pool.upcoming(0), std::nullopt);
  pool.drop_reference(BlockId(1), Content::cached);
  pool.drop_reference(BlockId(2), Content::uncached);
  EXPECT_EQ(pool.upcoming(0), BlockId(2));
  EXPECT_EQ(pool.upcoming(1), BlockId(1));
  EXPECT_EQ(pool.upcoming(2), std::nullopt);
}

TEST(BlockPoolDeathTest, RefusesToInventBlocks) {
  BlockPool pool(1);
  const BlockId block = pool.take();
  EXPECT_DEATH(pool.take(), "num_free_");
  pool.drop_reference(block, Content::uncached);
  EXPECT_DEATH(pool.drop_reference(block, Content::uncached), "released more often than taken");
  EXPECT_DEATH(pool.add_reference(BlockId(1)), "num_blocks");
}

}  // namespace
}  // namespace lorikeet::engine
