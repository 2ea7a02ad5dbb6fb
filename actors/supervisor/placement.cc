#include "actors/supervisor/placement.h"

#include <algorithm>
#include <utility>

namespace lorikeet::actors {

namespace {

DeviceLink link_of(const HostRoom& host, size_t device, size_t other) {
  return host.links.empty() ? DeviceLink::host : host.links[device * host.devices + other];
}

// The worst link of a set of devices first, then the sum of all.
using Quality = std::pair<DeviceLink, size_t>;

struct Choice {
  std::vector<size_t> devices;  // ascending
  Quality quality = {DeviceLink::nvlink, 0};
};

// So many of a host's devices that reach each other well: from each device on, always the one that adds the most.
Choice best_devices(const HostRoom& host, size_t count) {
  std::optional<Choice> best;
  for (size_t first = 0; first < host.devices; ++first) {
    Choice choice;
    std::vector<bool> taken(host.devices);
    for (size_t next = first; choice.devices.size() < count; next = device_for_rank(host, taken)) {
      for (const size_t other : choice.devices) {
        const DeviceLink link = link_of(host, next, other);
        choice.quality.first = std::min(choice.quality.first, link);
        choice.quality.second += static_cast<size_t>(link);
      }
      taken[next] = true;
      choice.devices.push_back(next);
    }
    std::sort(choice.devices.begin(), choice.devices.end());
    if (!best || choice.quality > best->quality) best = std::move(choice);
    if (host.links.empty()) break;
  }
  return best.value_or(Choice{});
}

}  // namespace

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
  std::optional<size_t> alone;
  DeviceLink worst = DeviceLink::host;  // of its choice
  for (const size_t host : order) {
    if (hosts[host].devices < ranks) continue;
    const DeviceLink link = best_devices(hosts[host], ranks).quality.first;
    if (!alone || link > worst || (link == worst && hosts[host].devices < hosts[*alone].devices)) {
      alone = host;
      worst = link;
    }
  }
  if (alone) order = {*alone};
  std::vector<Slot> slots;
  for (const size_t host : order) {
    const size_t count = std::min(hosts[host].devices, ranks - slots.size());
    for (const size_t device : best_devices(hosts[host], count).devices) slots.push_back({host, device});
  }
  return slots;
}

size_t device_for_rank(const HostRoom& host, const std::vector<bool>& taken) {
  std::optional<std::pair<Quality, size_t>> best;
  for (size_t device = 0; device < host.devices; ++device) {
    if (taken[device]) continue;
    Quality quality = {DeviceLink::nvlink, 0};
    for (size_t other = 0; other < host.devices; ++other) {
      if (!taken[other]) continue;
      const DeviceLink link = link_of(host, device, other);
      quality.first = std::min(quality.first, link);
      quality.second += static_cast<size_t>(link);
    }
    if (!best || quality > best->first) best = std::pair(quality, device);
  }
  return best ? best->second : 0;
}

std::optional<DeviceLink> worst_link(const HostRoom& host, size_t device, const std::vector<size_t>& others) {
  if (host.links.empty() || others.empty()) return std::nullopt;
  DeviceLink worst = DeviceLink::nvlink;
  for (const size_t other : others) worst = std::min(worst, link_of(host, device, other));
  return worst;
}

std::string name_of(DeviceLink link) {
  switch (link) {
    case DeviceLink::host:
      return "the host's memory";
    case DeviceLink::pcie:
      return "PCIe";
    case DeviceLink::nvlink:
      return "NVLink";
  }
  return "";
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
  size_t hosts = 4, addresses = 7, devices = 6;  // the headings
  bool links = false;
  for (const PlacedRank& rank : ranks) {
    hosts = std::max(hosts, rank.host.size());
    addresses = std::max(addresses, rank.address.size());
    devices = std::max(devices, rank.device.size());
    links |= !rank.links.empty();
  }
  std::string table = fmt::format("rank  {:{}}  {:{}}  ", "host", hosts, "address", addresses);
  table += links ? fmt::format("{:{}}  links", "device", devices) : "device";
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const PlacedRank& one = ranks[rank];
    table += fmt::format("\n{:>4}  {:{}}  {:{}}  ", rank, one.host, hosts, one.address, addresses);
    table += links ? fmt::format("{:{}}  {}", one.device, devices, one.links) : one.device;
  }
  return table;
}

}  // namespace lorikeet::actors
