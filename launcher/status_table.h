// A server's status as text for people, from its fields (actors/wire/server_status.h).
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "actors/wire/time_histogram.h"
#include "comm/codec/codec.h"

namespace lorikeet::launcher {

namespace table_detail {

using Line = std::pair<std::string, std::string>;  // a field's name and its value

std::string cell(const std::string& value);
std::string cell(bool value);
std::string cell(const actors::TimeHistogram& value);
template <class T>
requires std::is_integral_v<T> std::string cell(T value) {
  return fmt::format("{}", value);
}
template <class T>
std::string cell(const std::optional<T>& value) {
  return value ? cell(*value) : "-";
}

std::string lines_of(const std::vector<Line>& lines, const std::string& indent);
std::string table_of(const std::vector<std::vector<Line>>& rows);  // the rows have the same names

template <class T>
std::vector<Line> cells_of(const T& value) {
  std::vector<Line> cells;
  T::fields(value, [&cells](const char* name, const auto& field) { cells.emplace_back(name, cell(field)); });
  return cells;
}

}  // namespace table_detail

// Single values come first, as "key value" lines; then structs as such lines and lists of structs as tables, under
// their names as headings.
template <class T>
std::string status_table(const T& status) {
  using comm::codec_detail::HasFields;
  using comm::codec_detail::IsVector;
  std::vector<table_detail::Line> plain;
  std::string sections;
  T::fields(status, [&](const char* name, const auto& field) {
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (IsVector<Field>::value) {
      std::vector<std::vector<table_detail::Line>> rows;
      for (const auto& element : field) rows.push_back(table_detail::cells_of(element));
      if (rows.empty()) {
        plain.emplace_back(name, "-");
      } else {
        sections += fmt::format("\n{}\n{}", name, table_detail::table_of(rows));
      }
    } else if constexpr (HasFields<Field>) {
      sections += fmt::format("\n{}\n{}", name, table_detail::lines_of(table_detail::cells_of(field), "  "));
    } else {
      plain.emplace_back(name, table_detail::cell(field));
    }
  });
  return table_detail::lines_of(plain, "") + sections;
}

}  // namespace lorikeet::launcher
