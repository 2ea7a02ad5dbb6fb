// What `lorikeet serve` says once it serves: what is where, and what to try.
#pragma once

#include <string>

#include "actors/supervisor/server.h"
#include "actors/wire/options.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {

// Lines, without the end of the last one.
std::string served_summary(const actors::ServerOptions& options, const actors::ServerReady& ready,
                           const Terminal& terminal);

}  // namespace lorikeet::launcher
