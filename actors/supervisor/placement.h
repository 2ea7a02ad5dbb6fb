// Which host and device of a cluster a rank gets. Pure: hosts and ranks are numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/wire/host_message.h"
#include "kernels/base/error.h"

namespace lorikeet::actors {

struct Slot {
  size_t host = 0;
  size_t device = 0;  // the host's first, second, ...
  bool operator==(const Slot&) const = default;
};

// A host as the choice sees it, in the order of joining; the head's own comes first.
struct HostRoom {
  std::string name;
  size_t devices = 0;
  bool spare = false;               // in reserve: only for ranks that have lost their host
  std::vector<DeviceLink> links{};  // [device, other device]; empty: not known, all are alike
};

// The slots of a new group, by rank: all on one host if one has room (of such hosts the one whose worst link is the best; of
// equal ones the smallest, so that large hosts stay free); else the hosts with the most devices first, each filled before
// the next. On a host, the devices with the best links to each other. Errors: there is no room.
Result<std::vector<Slot>> place_group(const std::vector<HostRoom>& hosts, size_t ranks);

// The host for a rank that has lost its own: the one with the most ranks of its group, preferably no spare, of equal ones
// the first. free: unused devices of each host; of_group: ranks of the group on each. nullopt: there is no room.
std::optional<size_t> host_for_rank(const std::vector<HostRoom>& hosts, const std::vector<size_t>& free,
                                    const std::vector<size_t>& of_group);

// Of the host's free devices (there is one) the one with the best links to those that are taken.
size_t device_for_rank(const HostRoom& host, const std::vector<bool>& taken);

struct PlacedRank {
  std::string host, address, device;
  std::string links = {};  // to the rest of the group, as text; empty: not known
};

// The worst link between a device and the group's other devices on its host. nullopt: not known, or it is alone.
std::optional<DeviceLink> worst_link(const HostRoom& host, size_t device, const std::vector<size_t>& others);
std::string name_of(DeviceLink link);

// For people: a line per rank.
std::string placement_table(const std::vector<PlacedRank>& ranks);

}  // namespace lorikeet::actors
