#include "actors/supervisor/placement.h"

#include <gtest/gtest.h>

namespace lorikeet::actors {
namespace {

std::vector<HostRoom> hosts(const std::vector<size_t>& devices) {
  std::vector<HostRoom> rooms;
  for (const size_t count : devices) rooms.push_back({"h" + std::to_string(rooms.size()), count, false, {}});
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

constexpr DeviceLink kHostLink = DeviceLink::host, kPcie = DeviceLink::pcie, kNvlink = DeviceLink::nvlink;

// Pairs of neighbours over one kind of link, everything else over another.
HostRoom paired(size_t devices, DeviceLink within, DeviceLink between) {
  HostRoom room{"paired", devices, false, {}};
  for (size_t device = 0; device < devices; ++device) {
    for (size_t other = 0; other < devices; ++other) room.links.push_back(device / 2 == other / 2 ? within : between);
  }
  return room;
}

TEST(Placement, TakesTheDevicesOfAHostThatReachEachOtherBest) {
  HostRoom room = paired(4, kNvlink, kHostLink);
  EXPECT_EQ(*place_group({room}, 2), (std::vector<Slot>{{0, 0}, {0, 1}}));
  // Device 0 has the worst links of all, 1 and 3 the best.
  const auto link = [&](size_t one, size_t other, DeviceLink kind) {
    room.links[one * 4 + other] = room.links[other * 4 + one] = kind;
  };
  link(0, 1, kHostLink);
  link(1, 3, kNvlink);
  link(2, 3, kPcie);
  EXPECT_EQ(*place_group({room}, 2), (std::vector<Slot>{{0, 1}, {0, 3}}));
  EXPECT_EQ(*place_group({room}, 4), (std::vector<Slot>{{0, 0}, {0, 1}, {0, 2}, {0, 3}}));
}

TEST(Placement, PrefersAHostWithBetterLinksToASmallerOne) {
  const std::vector<HostRoom> rooms = {paired(2, kPcie, kPcie), paired(8, kNvlink, kNvlink),
                                       paired(4, kNvlink, kNvlink)};
  EXPECT_EQ(hosts_of(*place_group(rooms, 2)), (std::vector<size_t>{2, 2}));
  EXPECT_EQ(hosts_of(*place_group(rooms, 6)), std::vector<size_t>(6, 1));
  EXPECT_EQ(hosts_of(*place_group(rooms, 1)), (std::vector<size_t>{0})) << "one rank has no links";
  EXPECT_EQ(hosts_of(*place_group({paired(2, kPcie, kPcie), {"unknown", 2, false, {}}}, 2)),
            (std::vector<size_t>{0, 0}));
}

TEST(Placement, BringsALostRankNextToItsGroupsDevices) {
  const HostRoom room = paired(4, kNvlink, kPcie);
  EXPECT_EQ(device_for_rank(room, {false, false, false, true}), 2U);
  EXPECT_EQ(device_for_rank(room, {false, true, true, true}), 0U);
  EXPECT_EQ(device_for_rank(room, {false, false, false, false}), 0U);
  EXPECT_EQ(device_for_rank({"unknown", 3, false, {}}, {true, false, true}), 1U);
}

TEST(Placement, NamesTheWorstLinkOfARank) {
  const HostRoom room = paired(4, kNvlink, kPcie);
  EXPECT_EQ(worst_link(room, 0, {1}), kNvlink);
  EXPECT_EQ(worst_link(room, 0, {1, 2}), kPcie);
  EXPECT_EQ(worst_link(room, 0, {}), std::nullopt);
  EXPECT_EQ(worst_link({"unknown", 2, false, {}}, 0, {1}), std::nullopt);
  EXPECT_EQ(name_of(kNvlink) + ", " + name_of(kPcie) + ", " + name_of(kHostLink), "NVLink, PCIe, the host's memory");
}

TEST(Placement, ShowsLinksWhereTheyAreKnown) {
  EXPECT_EQ(placement_table({{"a", "10.0.0.1", "cuda 0 (NVIDIA H200, 140 GiB)", "NVLink, network"},
                             {"b", "10.0.0.2", "cuda 3", ""}}),
            "rank  host  address   device                         links\n"
            "   0  a     10.0.0.1  cuda 0 (NVIDIA H200, 140 GiB)  NVLink, network\n"
            "   1  b     10.0.0.2  cuda 3                         ");
}

TEST(Placement, IsShownWithALinePerRank) {
  EXPECT_EQ(placement_table({{"head", "10.0.0.1", "cuda 0"}, {"a-longer-name", "10.0.0.12", "cuda 3"}}),
            "rank  host           address    device\n"
            "   0  head           10.0.0.1   cuda 0\n"
            "   1  a-longer-name  10.0.0.12  cuda 3");
}

}  // namespace
}  // namespace lorikeet::actors
