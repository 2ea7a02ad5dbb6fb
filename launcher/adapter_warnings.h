// What is wrong with the adapters of the start, by what their headers say: told when the server starts rather than with
// the first request for each. They are read when they are asked for, and may be mended until then.
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

// A sentence for each of the first ten that would be refused now, and one for the rest of them: its files, a rank above
// --max-lora-rank, another base, more bytes than --max-cpu-lora-bytes. Returns after `patience` whatever the disk does,
// and then names the one whose files have not answered and how many were not looked at: a thread is left behind that
// waits for them. look: in place of the look at the files, on that thread.
RefusedAdapters adapter_warnings(const actors::ServerOptions& options,
                                 std::chrono::milliseconds patience = std::chrono::milliseconds(1000),
                                 WhyRefused look = nullptr);

}  // namespace lorikeet::launcher
