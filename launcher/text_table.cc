#include "launcher/text_table.h"

#include <algorithm>

#include "launcher/terminal.h"

namespace lorikeet::launcher {
namespace {

constexpr size_t kIndent = 2, kBetween = 2;
constexpr size_t kLeastWidth = 8;  // of the first column

std::string aligned(const std::string& cell, size_t width, bool right) {
  if (!right) return padded(cell, width);
  const size_t columns = text_width(cell);
  return std::string(columns < width ? width - columns : 0, ' ') + cell;
}

}  // namespace

std::string text_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows,
                       size_t width) {
  std::vector<size_t> widths;
  size_t sum = kIndent;
  for (size_t i = 0; i < columns.size(); ++i) {
    widths.push_back(text_width(columns[i].heading));
    for (const auto& row : rows) widths[i] = std::max(widths[i], text_width(row[i]));
    sum += widths[i] + (i == 0 ? 0 : kBetween);
  }
  if (sum > width) {
    const size_t excess = sum - width;
    widths[0] = std::max(std::min(widths[0], kLeastWidth), widths[0] - std::min(widths[0], excess));
  }
  std::string out;
  const auto add_line = [&](auto&& cell_of) {
    std::string line(kIndent, ' ');
    for (size_t i = 0; i < columns.size(); ++i) {
      if (i > 0) line.append(kBetween, ' ');
      line += aligned(shortened(cell_of(i), widths[i]), widths[i], columns[i].numbers);
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  add_line([&](size_t i) -> const std::string& { return columns[i].heading; });
  for (const auto& row : rows) {
    add_line([&](size_t i) -> const std::string& { return row[i]; });
  }
  return out;
}

}  // namespace lorikeet::launcher
