#include "engine/block_pool.h"

#include <gtest/gtest.h>

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

TEST(BlockPool, TakesWorthlessBlocksFirstThenTheLeastRecentlyUsed) {
  BlockPool pool(4);
  for (int i = 0; i < 4; ++i) pool.take();
  pool.drop_reference(BlockId(2), Content::cached);
  pool.drop_reference(BlockId(0), Content::cached);
  pool.drop_reference(BlockId(3), Content::worthless);
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

TEST(BlockPoolDeathTest, RefusesToInventBlocks) {
  BlockPool pool(1);
  const BlockId block = pool.take();
  EXPECT_DEATH(pool.take(), "num_free_");
  pool.drop_reference(block, Content::worthless);
  EXPECT_DEATH(pool.drop_reference(block, Content::worthless), "released more often than taken");
  EXPECT_DEATH(pool.add_reference(BlockId(1)), "num_blocks");
}

}  // namespace
}  // namespace lorikeet::engine
