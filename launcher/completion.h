// Scripts that let shells complete `lorikeet`'s command line.
#pragma once

#include <string>

#include "kernels/base/error.h"
#include "launcher/command_tree.h"

namespace lorikeet::launcher {

// Errors: a shell other than bash, zsh and fish.
Result<std::string> completion_script(const CommandInfo& lorikeet, const std::string& shell);

}  // namespace lorikeet::launcher
