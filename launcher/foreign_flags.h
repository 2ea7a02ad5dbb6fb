// vLLM's flags that name something which Lorikeet does not have, and vLLM's other ways to write flags.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace lorikeet::launcher {

// What was given of them: a sentence each.
struct ForeignFlags {
  std::vector<std::string> harmless;  // the server does what the flag's giver wants, or nothing depends on it
  std::vector<std::string> refused;   // it would not
};

// Adds them, hidden from --help. `given` must outlive the parsing.
void add_foreign_flags(CLI::App& app, ForeignFlags& given);

// vLLM's ways to write a flag that the parser does not have: -tp 2, -O3, and _ in place of -. Of a command that has the
// flag alone; all other words stay as they are.
std::vector<std::string> spelt_out(const CLI::App& command, const std::vector<std::string>& words);

}  // namespace lorikeet::launcher
