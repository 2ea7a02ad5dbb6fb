#include "actors/supervisor/placement.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

std::vector<HostRoom> hosts(const std::vector<size_t>& devices) {
  std::vector<HostRoom> rooms;
  for (const size_t count : devices) rooms.push_back({"h" + std::to_string(rooms.size()), count, false});
  return rooms;
}

std::vector<size_t> hosts_of(const std::vector<Slot>& slots) {
  std::vector<size_t> all;
  for (const Slot& slot : slots) all.push_back(slot.host);
  return all;
}

TEST(Placement, PutsAGroupOnTheSmallestHostThatHasRoomForAllOfIt) {
  const auto slots = place_group(hosts({1, 8, 4, 4}), 4);
  ASSERT_TRUE(slots);
  EXPECT_EQ(*slots, (std::vector<Slot>{{2, 0}, {2, 1}, {2, 2}, {2, 3}}));
}

TEST(Placement, FillsUnevenHostsTheLargestFirst) {
  const auto slots = place_group(hosts({1, 2, 0, 3}), 5);
  ASSERT_TRUE(slots);
  EXPECT_EQ(hosts_of(*slots), (std::vector<size_t>{3, 3, 3, 1, 1}));
}

TEST(Placement, TakesHostsOfEqualSizeInTheOrderOfJoining) {
  const auto slots = place_group(hosts({0, 1, 1, 1}), 2);
  ASSERT_TRUE(slots);
  EXPECT_EQ(hosts_of(*slots), (std::vector<size_t>{1, 2}));
}

TEST(Placement, KeepsSparesForLosses) {
  auto rooms = hosts({1, 4, 1});
  rooms[1].spare = true;
  const auto slots = place_group(rooms, 2);
  ASSERT_TRUE(slots);
  EXPECT_EQ(hosts_of(*slots), (std::vector<size_t>{0, 2}));
  const auto refused = place_group(rooms, 3);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "3 ranks need as many devices, and the hosts lend 2, not counting 4 in reserve");
}

TEST(Placement, BringsALostRankToItsGroupsHostsBeforeOthersAndToSparesLast) {
  auto rooms = hosts({4, 4, 4, 4});
  rooms[1].spare = true;
  EXPECT_EQ(host_for_rank(rooms, {1, 1, 1, 1}, {0, 3, 2, 1}), 2U);
  EXPECT_EQ(host_for_rank(rooms, {1, 1, 0, 1}, {0, 3, 4, 0}), 0U);
  EXPECT_EQ(host_for_rank(rooms, {0, 4, 0, 0}, {4, 0, 4, 4}), 1U);
  EXPECT_EQ(host_for_rank(rooms, {0, 0, 0, 0}, {4, 4, 4, 4}), std::nullopt);
}

TEST(Placement, IsShownWithALinePerRank) {
  EXPECT_EQ(placement_table({{"head", "10.0.0.1", "cuda 0"}, {"a-longer-name", "10.0.0.12", "cuda 3"}}),
            "rank  host           address    device\n"
            "   0  head           10.0.0.1   cuda 0\n"
            "   1  a-longer-name  10.0.0.12  cuda 3");
}

}  // namespace
}  // namespace lorikeet::actors
