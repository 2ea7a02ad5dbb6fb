// Looks at the headers of the adapters of --lora-modules before the server starts, so that people hear of bad ones then and
// not with the first request. Adapters are read when they are first asked for, and may be repaired until then.
#pragma once

#include <chrono>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "actors/wire/options.h"

namespace lorikeet::launcher {

// Why the adapter in a directory would be refused; empty: it would not.
using WhyRefused = std::function<std::string(const std::string& dir)>;

struct RefusedAdapters {
  std::vector<std::string> warnings;
  std::set<std::string> names;
};

// A sentence for each of the first ten adapters that would be refused now, and one for the rest. Reasons: the files, a rank
// above --max-lora-rank, another base, more bytes than --max-cpu-lora-bytes. Returns after `patience` even if a disk does not
// answer; then it names the adapter that it waits for, says how many were not looked at, and leaves a waiting thread
// behind. look: replaces the look at the files, on that thread (for tests).
RefusedAdapters adapter_warnings(const actors::ServerOptions& options,
                                 std::chrono::milliseconds patience = std::chrono::milliseconds(1000),
                                 WhyRefused look = nullptr);

}  // namespace lorikeet::launcher
