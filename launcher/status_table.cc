#include "launcher/status_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace lorikeet::launcher {
namespace {

using Json = nlohmann::ordered_json;

std::string cell(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "-";
  if (value.is_array()) {
    std::string joined;
    for (const Json& item : value) joined += (joined.empty() ? "" : ",") + cell(item);
    return joined.empty() ? "-" : joined;
  }
  return value.dump();
}

void add_lines(std::string& out, const Json& object, const std::string& indent) {
  size_t width = 0;
  for (const auto& [key, value] : object.items()) width = std::max(width, key.size());
  for (const auto& [key, value] : object.items()) out += fmt::format("{}{:<{}}  {}\n", indent, key, width, cell(value));
}

void add_table(std::string& out, const Json& rows) {
  std::vector<std::string> columns;
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) {
      if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
    }
  }
  std::vector<std::vector<std::string>> lines = {columns};
  for (const Json& row : rows) {
    std::vector<std::string> line;
    for (const std::string& column : columns) line.push_back(row.contains(column) ? cell(row[column]) : "-");
    lines.push_back(std::move(line));
  }
  std::vector<size_t> widths(columns.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const auto& line : lines) {
    std::string text = " ";
    for (size_t i = 0; i < line.size(); ++i) text += fmt::format(" {:<{}}", line[i], widths[i]);
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  }
}

bool is_table(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& row) { return row.is_object(); });
}

}  // namespace

std::string status_table(const Json& status) {
  Json plain = Json::object();
  std::string sections;
  for (const auto& [key, value] : status.items()) {
    if (is_table(value)) {
      sections += "\n" + key + "\n";
      add_table(sections, value);
    } else if (value.is_object()) {
      sections += "\n" + key + "\n";
      add_lines(sections, value, "  ");
    } else {
      plain[key] = value;
    }
  }
  std::string out;
  add_lines(out, plain, "");
  return out + sections;
}

}  // namespace lorikeet::launcher
