#include "engine/record_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "engine/ids.h"

namespace lorikeet::engine {
namespace {

struct Named {
  std::string name;
  int value = 0;
};
struct NameOf {
  const std::string& operator()(const Named& named) const { return named.name; }
};
using Index = RecordIndex<Named, NameOf>;

TEST(RecordIndex, FindsNothingWhereThereIsNothing) {
  RecordPool<Named> pool;
  Index index(pool);
  EXPECT_EQ(index.find("a"), nullptr);
  EXPECT_EQ(index.extract("a"), nullptr);
  EXPECT_EQ(index.size(), 0u);
}

TEST(RecordIndex, KeepsARecordInItsPlaceWhileOthersComeAndGo) {
  RecordPool<Named> pool;
  Index index(pool);
  const Named& first = index.insert(pool.make(Named{"first", 1}));
  for (int i = 0; i < 1000; ++i) index.insert(pool.make(Named{std::to_string(i), i}));
  for (int i = 0; i < 1000; i += 2) EXPECT_EQ(index.extract(std::to_string(i))->value, i);
  EXPECT_EQ(index.find("first"), &first);
  EXPECT_EQ(first.value, 1);
}

TEST(RecordIndex, DoesWhatAMapDoesInRandomHistories) {
  std::mt19937 random(20261130);
  RecordPool<Named> pool;
  Index index(pool);
  std::map<std::string, int> map;
  for (int step = 0; step < 20000; ++step) {
    const std::string key = std::to_string(random() % 300);
    const int value = static_cast<int>(random() % 1000);
    Named* const found = index.find(key);
    ASSERT_EQ(found != nullptr, map.contains(key)) << "step " << step;
    if (found != nullptr) ASSERT_EQ(found->value, map.at(key)) << "step " << step;
    if (found != nullptr && random() % 2 == 0) {
      ASSERT_EQ(index.extract(key)->value, map.at(key));
      map.erase(key);
    } else if (found == nullptr) {
      index.insert(pool.make(Named{key, value}));
      map[key] = value;
    }
    ASSERT_EQ(index.size(), map.size());
  }
  std::map<std::string, int> visited;
  index.for_each([&](const Named& named) { visited[named.name] = named.value; });
  EXPECT_EQ(visited, map);
}

struct Numbered {
  SequenceId id;
};
struct IdOf {
  SequenceId operator()(const Numbered& numbered) const { return numbered.id; }
};

TEST(RecordIndex, LooksAtFewPlacesHoweverManyRecordsThereAre) {
  for (const uint64_t count : {uint64_t{100}, uint64_t{100'000}}) {
    RecordPool<Numbered> pool;
    RecordIndex<Numbered, IdOf> index(pool);
    for (uint64_t i = 0; i < count; ++i) index.insert(pool.make(Numbered{SequenceId(i)}));
    const uint64_t before = index.looks();
    for (uint64_t i = 0; i < 1000; ++i) ASSERT_NE(index.find(SequenceId(i * 7919 % count)), nullptr);
    EXPECT_LE(index.looks() - before, 2000u) << count << " records";
  }
}

}  // namespace
}  // namespace lorikeet::engine
