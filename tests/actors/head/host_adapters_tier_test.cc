// Who stays in the head's memory.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "actors/head/host_adapters.h"
#include "tests/actors/head/staged_adapters.h"

namespace lorikeet::actors {
namespace {

using engine::SequenceId;

// Requests for adapters that are read, used and left.
class Visits {
 public:
  explicit Visits(size_t names, HostAdapters::Limits limits) : table_(limits, modules(names)) {}

  // Whether the adapter was in memory.
  bool visit(size_t i, uint64_t bytes = 10) {
    const std::string name = "n" + std::to_string(i);
    const bool was_there = table_.is_staged(name);
    table_.resolve(SequenceId(++id_), name);
    table_.checked(name, stamp(1), "");
    for (const auto& effect : table_.take_effects()) {
      if (std::holds_alternative<HostAdapters::Read>(effect)) table_.read(name, stamp(1), staged("of " + name, bytes));
    }
    table_.unclaim(SequenceId(id_), AdapterOutcome::success);
    table_.take_effects();
    return was_there;
  }

  const HostAdapters& table() const { return table_; }

 private:
  static std::vector<std::pair<std::string, std::string>> modules(size_t names) {
    std::vector<std::pair<std::string, std::string>> made;
    for (size_t i = 0; i < names; ++i) made.emplace_back("n" + std::to_string(i), "/" + std::to_string(i));
    return made;
  }
  HostAdapters table_;
  uint64_t id_ = 0;
};

TEST(HostAdaptersTier, KeepsWhatIsUsedOftenThroughAScanOfOneTimeAdapters) {
  Visits visits(1'000, {0, 200});
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < 16; ++i) visits.visit(i);
  }
  for (size_t i = 100; i < 900; ++i) EXPECT_FALSE(visits.visit(i));
  EXPECT_EQ(visits.table().staged_bytes(), 200u);
  EXPECT_EQ(visits.table().staged_count(), 20u);
  EXPECT_EQ(visits.table().evictions(), 796u);
  int there = 0;
  for (size_t i = 0; i < 16; ++i) there += visits.visit(i);
  EXPECT_GE(there, 15);
}

TEST(HostAdaptersTier, TakesALargeAdapterInThePlaceOfSeveral) {
  Visits large(10, {0, 100});
  for (size_t i = 0; i < 8; ++i) large.visit(i);
  large.visit(9, 60);
  EXPECT_TRUE(large.visit(9, 60));
  EXPECT_EQ(large.table().staged_bytes(), 100u);
  EXPECT_EQ(large.table().evictions(), 4u);
}

}  // namespace
}  // namespace lorikeet::actors
