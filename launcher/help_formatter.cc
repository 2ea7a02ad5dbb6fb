#include "launcher/help_formatter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <sstream>

namespace lorikeet::launcher {
namespace {

constexpr size_t kColumns = 80;
constexpr size_t kNames = 30;  // columns of the left side

std::string row(const std::string& left, const std::string& right) {
  std::string line = "  " + left;
  if (line.size() + 2 > kNames) {
    line += "\n" + std::string(kNames, ' ');
  } else {
    line.resize(kNames, ' ');
  }
  return line + wrap(right, kColumns - kNames, kNames) + "\n";
}

// "TEXT:{auto,cpu,cuda}" -> {"TEXT", "auto, cpu, cuda"}.
std::pair<std::string, std::string> type_and_choices(const std::string& type) {
  const size_t colon = type.find(':');
  const std::string name = type.substr(0, colon);
  const size_t open = type.find('{'), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return {name, ""};
  std::string choices;
  for (const char c : type.substr(open + 1, close - open - 1)) {
    choices += c;
    if (c == ',') choices += ' ';
  }
  return {name, choices};
}

}  // namespace

std::string wrap(const std::string& text, size_t width, size_t indent) {
  std::istringstream words(text);
  std::string out, word;
  size_t column = 0;
  while (words >> word) {
    if (column > 0 && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = 0;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

HelpFormatter::HelpFormatter() {
  column_width(kNames);
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return wrap(app->get_description(), kColumns, 0) + "\n";
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  std::string left, right = option->get_description();
  if (is_positional) {
    left = option->get_name(true);
  } else {
    // Every name but the positional one, short ones first: "-q,--quantization".
    std::vector<std::string> names;
    for (const std::string& name : option->get_snames()) names.push_back(fmt::format("-{}", name));
    for (const std::string& name : option->get_lnames()) names.push_back(fmt::format("--{}", name));
    left = fmt::format("{}", fmt::join(names, ","));
  }
  if (option->get_items_expected_max() > 0 && !is_positional) {
    const auto [type, choices] = type_and_choices(option->get_type_name());
    left += " " + (type.empty() ? std::string("VALUE") : type);
    if (option->get_items_expected_max() > 1) left += " ...";
    if (!choices.empty()) right += ": " + choices;
    const std::string value = option->get_default_str();
    if (!value.empty() && value != "\"\"" && value != "[]" && right.find("default") == std::string::npos) {
      right += fmt::format(" (default: {})", value);
    }
  }
  return row(left, right);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return row(command->get_name(), command->get_description());
}

}  // namespace lorikeet::launcher
