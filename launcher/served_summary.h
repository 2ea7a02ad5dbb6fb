// What `lorikeet serve` says once it serves: what is where, and what to try.
#pragma once

#include <set>
#include <string>

#include "actors/supervisor/server.h"
#include "actors/wire/options.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {

// Lines, without the end of the last one. has_tokenizer: else prompts are token ids. refused: adapters that are not to be
// tried, as they would be refused.
std::string served_summary(const actors::ServerOptions& options, const actors::ServerReady& ready,
                           const Terminal& terminal, bool has_tokenizer = true,
                           const std::set<std::string>& refused = {});

}  // namespace lorikeet::launcher
