// vLLM's flags for things that Lorikeet does not have, and vLLM's other spellings of flags.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace lorikeet::launcher {

// What was given of them: a sentence each.
struct ForeignFlags {
  std::vector<std::string> harmless;  // the server does what the flag asks for anyway, or nothing depends on it
  std::vector<std::string> refused;   // the server would not do what the flag asks for
};

// Adds them, hidden from --help. `given` must outlive the parsing.
void add_foreign_flags(CLI::App& app, ForeignFlags& given);

// Rewrites vLLM's spellings that the parser does not know: -tp 2, -O3, and _ in place of -. Only for flags that the command
// has; all other words stay as they are.
std::vector<std::string> spelt_out(const CLI::App& command, const std::vector<std::string>& words);

}  // namespace lorikeet::launcher
