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
  bool spare = false;               // in reserve: only for what has lost its host
  std::vector<DeviceLink> links{};  // [device, other device]; empty: not known, all are alike
};

// The slots of a fresh group, by rank: all on one host if one has room for it (of those the one whose worst link is the
// best, of equal ones the smallest, so that large ones stay free), else the hosts with the most devices first, each filled
// before the next. Of a host's devices those that reach each other best. Errors: there is no room.
Result<std::vector<Slot>> place_group(const std::vector<HostRoom>& hosts, size_t ranks);

// The host for one rank that has lost its own: with most of its group's ranks already, no spare if possible, the first.
// free: devices of each that nobody has; of_group: ranks of the group on it. nullopt: there is no room.
std::optional<size_t> host_for_rank(const std::vector<HostRoom>& hosts, const std::vector<size_t>& free,
                                    const std::vector<size_t>& of_group);

// The one of its devices that reaches those that are taken best; one is not.
size_t device_for_rank(const HostRoom& host, const std::vector<bool>& taken);

struct PlacedRank {
  std::string host, address, device;
  std::string links = {};  // to the rest of the group, by the device's word; empty: not known
};

// What links a slot's device to those of the group on its host: the worst of them. nullopt: not known, or it is alone.
std::optional<DeviceLink> worst_link(const HostRoom& host, size_t device, const std::vector<size_t>& others);
std::string name_of(DeviceLink link);

// For people: a line per rank.
std::string placement_table(const std::vector<PlacedRank>& ranks);

}  // namespace lorikeet::actors
