#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>
#include <vector>

namespace lorikeet::engine {
namespace {

using Tokens = std::vector<int32_t>;

TEST(PrefixCache, FindsABlockBehindItsPrefixAlone) {
  PrefixCache cache(4, 2);
  const Prefix root = cache.open_root("", 0);
  const Prefix first = cache.insert(root, Tokens{1, 2}, BlockId(3));
  const Prefix second = cache.insert(first, Tokens{3, 4}, BlockId(1));
  EXPECT_EQ(cache.find(root, Tokens{1, 2})->block, BlockId(3));
  EXPECT_EQ(cache.find(root, Tokens{1, 2})->prefix, first);
  EXPECT_EQ(cache.find(first, Tokens{3, 4})->block, BlockId(1));
  EXPECT_FALSE(cache.find(root, Tokens{3, 4}));
  EXPECT_FALSE(cache.find(first, Tokens{1, 2}));
  EXPECT_FALSE(cache.find(second, Tokens{3, 4}));
  EXPECT_FALSE(cache.find(root, Tokens{2, 1}));
}

TEST(PrefixCache, KeepsAdaptersAndSaltsApart) {
  PrefixCache cache(4, 2);
  const Prefix base = cache.open_root("", 0);
  cache.insert(base, Tokens{1, 2}, BlockId(0));
  for (const auto& [adapter, salt] : {std::pair("digest", 0), std::pair("", 1), std::pair("digest", 1)}) {
    EXPECT_FALSE(cache.find(cache.open_root(adapter, static_cast<uint64_t>(salt)), Tokens{1, 2}));
  }
  EXPECT_EQ(cache.open_root("", 0), base);
}

TEST(PrefixCache, KeepsTheFirstOfTwoBlocksWithOneContent) {
  PrefixCache cache(4, 2);
  const Prefix root = cache.open_root("", 0);
  const Prefix first = cache.insert(root, Tokens{1, 2}, BlockId(0));
  EXPECT_EQ(cache.insert(root, Tokens{1, 2}, BlockId(1)), first);
  EXPECT_TRUE(cache.contains(BlockId(0)));
  EXPECT_FALSE(cache.contains(BlockId(1)));
  EXPECT_EQ(cache.find(root, Tokens{1, 2})->block, BlockId(0));
}

TEST(PrefixCache, DoesNotEnterAChainBehindAnEvictedBlock) {
  PrefixCache cache(4, 2);
  const Prefix root = cache.open_root("", 0);
  const Prefix first = cache.insert(root, Tokens{1, 2}, BlockId(0));
  cache.insert(first, Tokens{3, 4}, BlockId(1));
  cache.erase(BlockId(0));
  EXPECT_FALSE(cache.find(root, Tokens{1, 2}));
  const Prefix again = cache.insert(root, Tokens{1, 2}, BlockId(2));
  EXPECT_NE(again, first);
  EXPECT_FALSE(cache.find(again, Tokens{3, 4}));
}

TEST(PrefixCache, ForgetsRootsThatNobodyUses) {
  PrefixCache cache(4, 1);
  for (uint64_t salt = 0; salt < 100; ++salt) cache.close_root(cache.open_root("digest", salt));
  EXPECT_EQ(cache.num_roots(), 0u);
  const Prefix root = cache.open_root("digest", 7);
  cache.insert(root, Tokens{5}, BlockId(0));
  cache.close_root(root);
  EXPECT_EQ(cache.num_roots(), 1u) << "a block is cached under it";
  EXPECT_TRUE(cache.find(cache.open_root("digest", 7), Tokens{5}));
  cache.close_root(root);
  cache.erase(BlockId(0));
  EXPECT_EQ(cache.num_roots(), 0u);
}

TEST(PrefixCache, ForgetsEverythingWhenCleared) {
  PrefixCache cache(4, 1);
  const Prefix root = cache.open_root("", 0);
  cache.insert(cache.insert(root, Tokens{1}, BlockId(0)), Tokens{2}, BlockId(1));
  cache.clear();
  EXPECT_FALSE(cache.contains(BlockId(0)));
  EXPECT_FALSE(cache.find(root, Tokens{1}));
  EXPECT_EQ(cache.num_roots(), 1u) << "still open";
}

TEST(PrefixCache, AgreesWithAMap) {
  // More entries than buckets would like, few distinct tokens: chains grow, are cut at both ends and in the middle.
  constexpr int32_t kBlocks = 64;
  PrefixCache cache(kBlocks, 2);
  const Prefix root = cache.open_root("", 0);
  using Key = std::tuple<Prefix, int32_t, int32_t>;
  std::map<Key, PrefixCache::Hit> model;
  std::vector<Prefix> parents{root};
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    const BlockId block(static_cast<int32_t>(random() % kBlocks));
    const Prefix parent = parents[random() % parents.size()];
    const Tokens tokens{static_cast<int32_t>(random() % 6), static_cast<int32_t>(random() % 6)};
    const Key key{parent, tokens[0], tokens[1]};
    const auto known = model.find(key);
    const auto found = cache.find(parent, tokens);
    ASSERT_EQ(found.has_value(), known != model.end());
    if (found) {
      ASSERT_EQ(found->block, known->second.block);
      ASSERT_EQ(found->prefix, known->second.prefix);
    }
    cache.erase(block);
    std::erase_if(model, [&](const auto& entry) { return entry.second.block == block; });
    const Prefix prefix = cache.insert(parent, tokens, block);
    const auto kept = model.try_emplace(key, PrefixCache::Hit{block, prefix}).first;
    ASSERT_EQ(kept->second.prefix, prefix);
    ASSERT_EQ(cache.contains(block), kept->second.block == block);
    if (parents.size() < 40) parents.push_back(prefix);
  }
}

}  // namespace
}  // namespace lorikeet::engine
