#include "comm/cluster/interfaces.h"

#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

namespace lorikeet::comm {
namespace {

struct Interface {
  std::string name, address;
  int family = 0;
};

std::vector<Interface> all_interfaces() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(first, freeifaddrs);
  std::vector<Interface> all;
  for (const ifaddrs* one = first; one; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
    const int family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    std::array<char, NI_MAXHOST> text{};
    const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (getnameinfo(one->ifa_addr, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    all.push_back({one->ifa_name, text.data(), family});
  }
  return all;
}

}  // namespace

Result<std::string> address_of_interface(const std::string& name) {
  const auto all = all_interfaces();
  for (const int family : {AF_INET, AF_INET6}) {
    for (const Interface& one : all) {
      if (one.name == name && one.family == family) return one.address;
    }
  }
  std::set<std::string> names;
  for (const Interface& one : all) names.insert(one.name);
  return fail("this host has no interface {} that is up and has an address, only {}", name, fmt::join(names, ", "));
}

std::string interface_with(const std::string& address) {
  for (const Interface& one : all_interfaces()) {
    if (one.address == address) return one.name;
  }
  return "";
}

}  // namespace lorikeet::comm
