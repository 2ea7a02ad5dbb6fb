#include "launcher/status_table.h"

#include <algorithm>

namespace lorikeet::launcher::table_detail {

std::string cell(const std::string& value) {
  return value;
}

std::string cell(bool value) {
  return value ? "true" : "false";
}

std::string cell(const actors::TimeHistogram& value) {
  if (value.count() == 0) return "-";
  return fmt::format("p50 {} ns, p99 {} ns", value.percentile(0.5), value.percentile(0.99));
}

std::string lines_of(const std::vector<Line>& lines, const std::string& indent) {
  size_t width = 0;
  for (const auto& [name, value] : lines) width = std::max(width, name.size());
  std::string out;
  for (const auto& [name, value] : lines) out += fmt::format("{}{:<{}}  {}\n", indent, name, width, value);
  return out;
}

std::string table_of(const std::vector<std::vector<Line>>& rows) {
  std::vector<std::vector<std::string>> lines(1);
  for (const auto& [name, value] : rows.front()) lines[0].push_back(name);
  for (const std::vector<Line>& row : rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const auto& [name, value] : row) line.push_back(value);
  }
  std::vector<size_t> widths(lines[0].size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text = " ";
    for (size_t i = 0; i < line.size(); ++i) text += fmt::format(" {:<{}}", line[i], widths[i]);
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

}  // namespace lorikeet::launcher::table_detail
