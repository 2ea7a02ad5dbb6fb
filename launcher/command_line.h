// From the arguments to a command: one form of error for all of them. Exit statuses: exit_status.h.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace lorikeet::launcher {

// Parses and runs. Errors of the command line go to standard error behind "lorikeet COMMAND: ", with a suggestion where a
// word is nearly a known one. `exit_status`: where the commands of `app` write their status. Returns the process's status.
int run_command_line(CLI::App& app, const std::vector<std::string>& arguments, const int& exit_status);

}  // namespace lorikeet::launcher
