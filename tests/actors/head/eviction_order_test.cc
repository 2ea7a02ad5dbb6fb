#include "actors/head/eviction_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>

namespace lorikeet::actors {
namespace {

uint64_t hash_of(int key) {
  return std::hash<std::string>{}("key " + std::to_string(key));
}

TEST(FrequencySketch, CountsTheUsesOfAKeyBesideThousandsOfOthers) {
  FrequencySketch sketch;
  for (int i = 0; i < 50; ++i) sketch.add(hash_of(-1));
  for (int key = 0; key < 5'000; ++key) sketch.add(hash_of(key));
  EXPECT_GE(sketch.estimate(hash_of(-1)), 25u) << "halved once at the most";
  int one = 0;
  for (int key = 0; key < 5'000; ++key) one += sketch.estimate(hash_of(key)) <= 1;
  EXPECT_GT(one, 4'500) << "few share all their counters with others";
}

TEST(FrequencySketch, ForgetsWhatIsNotUsedAnyMore) {
  FrequencySketch sketch;
  for (int i = 0; i < 100; ++i) sketch.add(hash_of(-1));
  EXPECT_GE(sketch.estimate(hash_of(-1)), 99u);
  for (size_t i = 0; i < 8 * FrequencySketch::kWindow; ++i) sketch.add(hash_of(1));
  EXPECT_EQ(sketch.estimate(hash_of(-1)), 0u);
  EXPECT_EQ(sketch.estimate(hash_of(1)), FrequencySketch::kMost);
}

// A cache of `capacity` records, of which nobody uses any for long.
class Cache {
 public:
  explicit Cache(size_t capacity, uint64_t share = 2) : capacity_(capacity), order_(uses_, share) {}

  // Whether it was there.
  bool use(int key) {
    uses_.add(hash_of(key));
    for (Record& record : records_) {
      if (record.key != key || !record.here) continue;
      order_.erase(record);
      order_.push(record);
      return true;
    }
    if (order_.size() == capacity_) {
      Record& victim = order_.victim();
      order_.erase(victim);
      victim.here = false;
      victim.state.settled = false;
    }
    Record& added = records_.emplace_back();
    added.key = key;
    added.state.hash = hash_of(key);
    order_.push(added);
    return false;
  }

  std::vector<int> keys() const {
    std::vector<int> keys;
    order_.for_each([&](const Record& record) { keys.push_back(record.key); });
    return keys;
  }

 private:
  struct Record {
    int key = 0;
    bool here = true;
    ListLinks<Record> links;
    EvictionState state;
  };
  const size_t capacity_;
  FrequencySketch uses_;
  EvictionOrder<Record, &Record::links, &Record::state> order_;
  std::deque<Record> records_;
};

TEST(EvictionOrder, IsThatOfTheLastUseWhereAllAreUsedAlike) {
  Cache cache(3);
  for (int key : {1, 2, 3}) EXPECT_FALSE(cache.use(key));
  EXPECT_FALSE(cache.use(4));
  EXPECT_THAT(cache.keys(), ::testing::UnorderedElementsAre(2, 3, 4));
  EXPECT_FALSE(cache.use(5));
  EXPECT_THAT(cache.keys(), ::testing::UnorderedElementsAre(3, 4, 5));
}

TEST(EvictionOrder, KeepsWhatIsUsedOftenThroughAScanOfOneTimeKeys) {
  Cache cache(10);
  for (int round = 0; round < 3; ++round) {
    for (int key = 0; key < 8; ++key) cache.use(key);
  }
  for (int key = 1'000; key < 3'000; ++key) EXPECT_FALSE(cache.use(key));
  int kept = 0;
  for (int key = 0; key < 8; ++key) kept += cache.use(key);
  EXPECT_GE(kept, 7) << "a scan goes through the recent ones";
}

TEST(EvictionOrder, LetsNewFavouritesInAndOldOnesGo) {
  Cache cache(10);
  for (int round = 0; round < 5; ++round) {
    for (int key = 0; key < 10; ++key) cache.use(key);
  }
  int hits = 0;
  for (int round = 0; round < 30; ++round) {
    for (int key = 100; key < 106; ++key) hits += cache.use(key);
  }
  EXPECT_GT(hits, 100) << "of 180";
}

}  // namespace
}  // namespace lorikeet::actors
