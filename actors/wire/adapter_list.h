// The adapters that are served as clients see them: the answer of /v1/adapters and of the action `list`, and the table
// of `lorikeet adapters list` (comm/PROTOCOL.md explains the keys).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/wire/server_status.h"

namespace lorikeet::actors {

struct ListedAdapter {
  std::string name, digest;
  std::string tier;  // tier_of()
  std::optional<int32_t> slot;
  int32_t rank = 0;
  uint64_t bytes = 0, leases = 0, claims = 0;
  bool pinned = false, set_aside = false, replaced = false;
  std::string directory;
  std::optional<std::string> error;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("digest", s.digest);
    visit("tier", s.tier);
    visit("slot", s.slot);
    visit("rank", s.rank);
    visit("bytes", s.bytes);
    visit("leases", s.leases);
    visit("claims", s.claims);
    visit("pinned", s.pinned);
    visit("set_aside", s.set_aside);
    visit("replaced", s.replaced);
    visit("directory", s.directory);
    visit("error", s.error);
  }
};

struct AdapterList {
  std::vector<ListedAdapter> adapters;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("adapters", s.adapters);
  }
};

// Where the weights of an adapter are, the place nearest to the model: slot, host or disk.
inline std::string_view tier_of(const AdapterStatus& adapter) {
  if (adapter.slot_state == "resident") return "slot";
  return adapter.host == "staged" || adapter.host == "replaced" || adapter.host == "loading" ? "host" : "disk";
}

inline AdapterList adapter_list(const AdaptersStatus& status) {
  AdapterList list;
  for (const AdapterStatus& a : status.adapters) {
    if (a.host == "loading") continue;  // it is not served yet
    list.adapters.push_back({a.name, a.digest, std::string(tier_of(a)), a.slot, a.rank, a.bytes, a.leases, a.claims,
                             a.pinned, a.set_aside, a.host == "replaced", a.directory, a.error});
  }
  return list;
}

}  // namespace lorikeet::actors
