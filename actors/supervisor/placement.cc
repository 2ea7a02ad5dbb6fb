#include "actors/supervisor/placement.h"

#include <algorithm>
#include <numeric>

namespace lorikeet::actors {

Result<std::vector<Slot>> place_group(const std::vector<HostRoom>& hosts, size_t ranks) {
  std::vector<size_t> order;
  size_t room = 0, kept = 0;
  for (size_t host = 0; host < hosts.size(); ++host) {
    (hosts[host].spare ? kept : room) += hosts[host].devices;
    if (!hosts[host].spare) order.push_back(host);
  }
  if (room < ranks) {
    const std::string spares = kept > 0 ? fmt::format(", not counting {} in reserve", kept) : "";
    return fail("{} ranks need as many devices, and the hosts lend {}{}", ranks, room, spares);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t one, size_t other) { return hosts[one].devices > hosts[other].devices; });
  // The last of those that are large enough for all is the smallest, and of equal ones the first is wanted.
  const auto first_too_small =
      std::find_if(order.begin(), order.end(), [&](size_t host) { return hosts[host].devices < ranks; });
  if (first_too_small != order.begin()) {
    const size_t smallest = hosts[*std::prev(first_too_small)].devices;
    const auto chosen =
        std::find_if(order.begin(), order.end(), [&](size_t host) { return hosts[host].devices == smallest; });
    order = {*chosen};
  }
  std::vector<Slot> slots;
  for (const size_t host : order) {
    for (size_t device = 0; device < hosts[host].devices && slots.size() < ranks; ++device) {
      slots.push_back({host, device});
    }
  }
  return slots;
}

std::optional<size_t> host_for_rank(const std::vector<HostRoom>& hosts, const std::vector<size_t>& free,
                                    const std::vector<size_t>& of_group) {
  std::optional<size_t> best;
  for (size_t host = 0; host < hosts.size(); ++host) {
    if (free[host] == 0) continue;
    if (!best || (hosts[*best].spare && !hosts[host].spare) ||
        (hosts[*best].spare == hosts[host].spare && of_group[host] > of_group[*best])) {
      best = host;
    }
  }
  return best;
}

std::string placement_table(const std::vector<PlacedRank>& ranks) {
  size_t hosts = 4, addresses = 7;  // the headings
  for (const PlacedRank& rank : ranks) {
    hosts = std::max(hosts, rank.host.size());
    addresses = std::max(addresses, rank.address.size());
  }
  std::string table = fmt::format("rank  {:{}}  {:{}}  device", "host", hosts, "address", addresses);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    table += fmt::format("\n{:>4}  {:{}}  {:{}}  {}", rank, ranks[rank].host, hosts, ranks[rank].address, addresses,
                         ranks[rank].device);
  }
  return table;
}

}  // namespace lorikeet::actors
