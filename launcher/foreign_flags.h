// vLLM's flags that name something which Lorikeet does not have.
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

}  // namespace lorikeet::launcher
