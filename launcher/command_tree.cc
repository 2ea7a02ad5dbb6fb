#include "launcher/command_tree.h"

namespace lorikeet::launcher {
namespace {

// "TEXT:{auto,cpu,cuda}" -> {"TEXT", {"auto", "cpu", "cuda"}}.
std::pair<std::string, std::vector<std::string>> type_and_choices(const std::string& type) {
  std::pair<std::string, std::vector<std::string>> result;
  result.first = type.substr(0, type.find(':'));
  const size_t open = type.find('{'), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return result;
  std::string choice;
  for (const char c : type.substr(open + 1, close - open - 1) + ",") {
    if (c != ',') {
      choice += c;
    } else if (!choice.empty()) {
      result.second.push_back(choice);
      choice.clear();
    }
  }
  return result;
}

CommandInfo describe(const CLI::App& app, const std::string& above) {
  CommandInfo info;
  info.name = above.empty() ? app.get_name() : above + " " + app.get_name();
  info.description = app.get_description();
  info.footer = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_group().empty()) info.flags.push_back(flag_info(*option));
  }
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!command->get_group().empty()) info.commands.push_back(describe(*command, info.name));
  }
  return info;
}

}  // namespace

FlagInfo flag_info(const CLI::Option& option) {
  FlagInfo info;
  info.description = option.get_description();
  info.group = option.get_group();
  for (const std::string& name : option.get_snames()) info.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) info.names.push_back("--" + name);
  if (option.get_positional()) info.positional = option.get_name(true);
  if (option.get_items_expected_max() <= 0) return info;
  auto [type, choices] = type_and_choices(option.get_type_name());
  info.value = type.empty() ? "VALUE" : std::move(type);
  info.choices = std::move(choices);
  info.several = option.get_items_expected_max() > 1 && option.get_allow_extra_args();
  const std::string value = option.get_default_str();
  const bool said = info.description.find("default") != std::string::npos;
  if (!said && value != "\"\"" && value != "[]") info.default_value = value;
  return info;
}

CommandInfo command_tree(const CLI::App& app) {
  return describe(app, "");
}

}  // namespace lorikeet::launcher
