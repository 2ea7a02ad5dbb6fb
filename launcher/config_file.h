// Flags from a file, as `vllm serve --config` reads them: YAML, its keys the flags' names.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "kernels/base/error.h"

namespace lorikeet::launcher {

// For commands with --config: shown in --help; read by expand_config_file before the parser sees the arguments.
void add_config_flag(CLI::App& command);

// Replaces --config FILE in `arguments` (those behind the command's name) by the file's flags, except those that the command
// line gives, too. In the file a list gives a flag several values; true gives a flag without a value; false takes it back,
// or leaves it out. Errors name the file and the line: invalid YAML, a key that is no flag.
Result<std::vector<std::string>> expand_config_file(const CLI::App& command, std::vector<std::string> arguments);

}  // namespace lorikeet::launcher
