#include "launcher/help_formatter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <sstream>

#include "launcher/command_tree.h"

namespace lorikeet::launcher {
namespace {

constexpr size_t kColumns = 80;
constexpr size_t kFlagColumns = 30;  // columns of the left side

std::string row(const std::string& left, const std::string& right) {
  std::string line = "  " + left;
  if (line.size() + 2 > kFlagColumns) {
    line += "\n" + std::string(kFlagColumns, ' ');
  } else {
    line.resize(kFlagColumns, ' ');
  }
  return line + wrap(right, kColumns - kFlagColumns, kFlagColumns) + "\n";
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
  column_width(kFlagColumns);
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return wrap(app->get_description(), kColumns, 0) + "\n";
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  const FlagInfo info = flag_info(*option);
  if (is_positional) return row(option->get_name(true), info.description);
  std::string left = fmt::format("{}", fmt::join(info.names, ",")), right = info.description;
  if (!info.value.empty()) {
    left += " " + info.value;
    if (info.several) left += " ...";
    if (!info.choices.empty()) right += fmt::format(": {}", fmt::join(info.choices, ", "));
    if (!info.default_value.empty()) right += fmt::format(" (default: {})", info.default_value);
  }
  return row(left, right);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  return row(command->get_name(), command->get_description());
}

}  // namespace lorikeet::launcher
