// Which host and device of a cluster a rank gets. Pure: hosts and ranks are numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
  bool spare = false;  // in reserve: only for what has lost its host
};

// The slots of a fresh group, by rank: all on one host if one has room for it (the smallest such one, so that large ones
// stay free), else the hosts with the most devices first, each filled before the next. Errors: there is no room.
Result<std::vector<Slot>> place_group(const std::vector<HostRoom>& hosts, size_t ranks);

// The host for one rank that has lost its own: with most of its group's ranks already, no spare if possible, the first.
// free: devices of each that nobody has; of_group: ranks of the group on it. nullopt: there is no room.
std::optional<size_t> host_for_rank(const std::vector<HostRoom>& hosts, const std::vector<size_t>& free,
                                    const std::vector<size_t>& of_group);

struct PlacedRank {
  std::string host, address, device;
};

// For people: a line per rank.
std::string placement_table(const std::vector<PlacedRank>& ranks);

}  // namespace lorikeet::actors
