// From the arguments to a command: one form of error for all of them. Exit statuses: exit_status.h.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace lorikeet::launcher {

// Parses and runs; what went wrong with the command line goes to standard error behind "lorikeet COMMAND: ", with a
// guess where a word is nearly a known one. `exit_status` is what the commands of `app` write to. Returns the status of
// the process.
int run_command_line(CLI::App& app, const std::vector<std::string>& arguments, const int& exit_status);

}  // namespace lorikeet::launcher
