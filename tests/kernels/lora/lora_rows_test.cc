#include "kernels/lora/lora_rows.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace lorikeet::kernels {
namespace {

// What the device would read.
struct Description {
  std::vector<unsigned char> host;
  LoraRows rows;
  uint64_t used = 0;
};

Description describe(const LoraRowPlan& plan, const std::vector<int32_t>& slots, const std::vector<int32_t>& ranks) {
  Description d;
  d.host.assign(plan.bytes(), 0xff);
  d.used = plan.write(slots, ranks, d.host.data());
  d.rows = plan.on_device(d.host.data(), static_cast<int32_t>(slots.size()));
  return d;
}

TEST(LoraRows, PutsRowsOfASlotBehindEachOtherAndThoseWithoutLast) {
  const LoraRowPlan plan(8, 3, 64);
  const Description d = describe(plan, {2, -1, 0, 2, -1, 0}, {16, 0, 20});
  const std::vector<int32_t> order(d.rows.order, d.rows.order + 6);
  EXPECT_EQ(order, (std::vector<int32_t>{2, 5, 0, 3, 1, 4}));
  ASSERT_EQ(d.rows.counts->tiles, 3);
  EXPECT_EQ(d.rows.counts->adapter_tiles, 2);
  EXPECT_EQ(d.rows.tiles[1].slot, 2);
  EXPECT_EQ(d.rows.tiles[1].first, 2);
  EXPECT_EQ(d.rows.tiles[1].count, 2);
  EXPECT_EQ(d.rows.tiles[2].slot, -1);
  EXPECT_EQ(d.rows.counts->units, 2 + 3);
  EXPECT_EQ(d.rows.units[4].slot, 2);
  EXPECT_EQ(d.rows.units[4].first_rank, 16);
}

TEST(LoraRows, DescribesAStepWithoutRows) {
  const LoraRowPlan plan(0, 0, 8);
  const Description d = describe(plan, {}, {});
  EXPECT_EQ(d.rows.counts->tiles, 0);
  EXPECT_EQ(d.rows.counts->units, 0);
}

TEST(LoraRows, CoversEveryRowAndEveryRankOnceWhateverTheMix) {
  std::mt19937 random(3);
  for (int repeat = 0; repeat < 300; repeat++) {
    const auto max_rows = static_cast<int32_t>(random() % 300 + 1);
    const auto max_slots = static_cast<int32_t>(random() % 40);
    const LoraRowPlan plan(max_rows, max_slots, 512);
    std::vector<int32_t> ranks;
    for (int32_t s = 0; s < max_slots; s++) ranks.push_back(static_cast<int32_t>(random() % 513));
    const size_t rows = random() % static_cast<unsigned>(max_rows) + 1;
    std::vector<int32_t> slots;
    for (size_t i = 0; i < rows; i++) {
      slots.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(max_slots + 1)) - 1);
    }
    const Description d = describe(plan, slots, ranks);
    ASSERT_LE(d.used, plan.bytes());
    const auto n = static_cast<int32_t>(rows);
    std::set<int32_t> seen;
    int32_t next = 0;
    for (int32_t i = 0; i < d.rows.counts->tiles; i++) {
      const LoraTile& tile = d.rows.tiles[i];
      EXPECT_EQ(tile.first, next);
      EXPECT_LE(tile.count, LoraRowPlan::kTileRows);
      EXPECT_EQ(tile.slot >= 0, i < d.rows.counts->adapter_tiles);
      for (int32_t r = 0; r < tile.count; r++) {
        const int32_t row = d.rows.order[tile.first + r];
        EXPECT_EQ(slots[static_cast<size_t>(row)], tile.slot);
        EXPECT_TRUE(seen.insert(row).second);
      }
      next += tile.count;
    }
    EXPECT_EQ(next, n);
    std::set<std::pair<int32_t, int32_t>> units;
    for (int32_t i = 0; i < d.rows.counts->units; i++) {
      const LoraTile& unit = d.rows.units[i];
      EXPECT_LT(unit.first_rank, ranks[static_cast<size_t>(unit.slot)]);
      for (int32_t r = 0; r < unit.count; r++) {
        EXPECT_TRUE(units.insert({d.rows.order[unit.first + r], unit.first_rank}).second);
      }
    }
    size_t expected = 0;
    for (const int32_t slot : slots) {
      const int32_t step = LoraRowPlan::unit_ranks(n);
      if (slot >= 0) expected += static_cast<size_t>((ranks[static_cast<size_t>(slot)] + step - 1) / step);
    }
    EXPECT_EQ(units.size(), expected);
  }
}

}  // namespace
}  // namespace lorikeet::kernels
