// A rank's memory that outlives its process: what its predecessor left, and calls to the supervisor, which holds it.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actors/wire/child_process.h"
#include "actors/wire/control_message.h"

namespace lorikeet::actors {

// Threads: the rank's step thread. By default nothing was left, and nobody holds anything.
struct RankMemory {
  std::vector<InheritedRegion> inherited;
  std::function<void(const RegionDescription&, const Descriptor&)> hold = [](const auto&, const auto&) {};
  std::function<void()> drop = [] {};                                     // all that is held for this rank
  std::function<void(const std::string&)> drop_one = [](const auto&) {};  // the region of that name
  std::function<void(const std::string&)> say = [](const auto&) {};       // a sentence for people

  // The region of that name, once.
  std::optional<InheritedRegion> take(std::string_view name) {
    for (auto it = inherited.begin(); it != inherited.end(); ++it) {
      if (it->what.name != name) continue;
      std::optional<InheritedRegion> found(std::move(*it));
      inherited.erase(it);
      return found;
    }
    return std::nullopt;
  }
};

}  // namespace lorikeet::actors
