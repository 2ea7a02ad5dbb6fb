// The commands and their flags as data, read from the parser: what completion scripts and man pages are made of.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::launcher {

struct FlagInfo {
  std::vector<std::string> names;  // "-q", "--quantization"; none: it is positional only
  std::string positional;          // its name as a positional argument; empty: it is none
  std::string description;
  std::string group;
  std::string value;                 // what it takes, such as TEXT; empty: nothing
  std::vector<std::string> choices;  // all that its value may be; none: anything
  std::string default_value;         // empty: none, or the description says it
  bool several = false;              // it takes several values
};

struct CommandInfo {
  std::string name;  // with those above it: "lorikeet bench serve"
  std::string description;
  std::string footer;
  std::vector<FlagInfo> flags;  // in their order; without those that --help hides
  std::vector<CommandInfo> commands;
};

CommandInfo command_tree(const CLI::App& app);

FlagInfo flag_info(const CLI::Option& option);

}  // namespace lorikeet::launcher
