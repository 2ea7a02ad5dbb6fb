// What is wrong with the adapters of the start, by what their headers say: told when the server starts rather than with
// the first request for each. They are read when they are asked for, and may be mended until then.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "actors/wire/options.h"

namespace lorikeet::launcher {

// A sentence for each that would be refused now: its files, a rank above --max-lora-rank, another base, more bytes than
// --max-cpu-lora-bytes. Looks no longer than `patience`, and names how many it has not looked at. Blocks on the disk.
std::vector<std::string> adapter_warnings(const actors::ServerOptions& options,
                                          std::chrono::milliseconds patience = std::chrono::milliseconds(1000));

}  // namespace lorikeet::launcher
