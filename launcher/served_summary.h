// What `lorikeet serve` prints once it serves: addresses, and commands to try.
#pragma once

#include <set>
#include <string>

#include "actors/supervisor/server.h"
#include "actors/wire/options.h"
#include "launcher/terminal.h"

namespace lorikeet::launcher {

// Lines, without the end of the last one. has_tokenizer: false where prompts must be token ids. refused: adapters that would
// be refused, and are not suggested.
std::string served_summary(const actors::ServerOptions& options, const actors::ServerReady& ready,
                           const Terminal& terminal, bool has_tokenizer = true,
                           const std::set<std::string>& refused = {});

}  // namespace lorikeet::launcher
