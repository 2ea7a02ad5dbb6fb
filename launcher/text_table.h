// Columns of text that fit a width.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lorikeet::launcher {

struct Column {
  std::string heading;
  bool numbers = false;  // aligned to the right
};

// Lines indented by two spaces, each of at most `width` columns: where they would be longer, the first column's cells are
// shortened. Every row has a cell per column.
std::string text_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows,
                       size_t width);

}  // namespace lorikeet::launcher
