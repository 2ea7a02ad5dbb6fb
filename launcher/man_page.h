// Man pages of the commands.
#pragma once

#include <string>

#include "launcher/command_tree.h"

namespace lorikeet::launcher {

// In roff, for man(1). version: of the program.
std::string man_page(const CommandInfo& command, const std::string& version);

}  // namespace lorikeet::launcher
