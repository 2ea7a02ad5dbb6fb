// What can be shown where a descriptor leads: a terminal of some width, with colours or without, or a pipe or a file.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lorikeet::launcher {

struct Terminal {
  bool present = false;  // it is a terminal whose cursor can be moved
  bool colours = false;  // and that colours are wanted on: NO_COLOR is not set
  size_t columns = 80;
};

Terminal terminal_of(int descriptor);

// Columns that UTF-8 text takes, a code point counting as one.
size_t text_width(std::string_view text);

// The text in one line of at most `width` columns, its end replaced by "..." where it is longer; control characters
// become spaces.
std::string shortened(std::string_view text, size_t width);

// The text, filled with spaces up to `width` columns.
std::string padded(std::string text, size_t width);

// The text in a colour of the terminal's, by the codes of ECMA-48 ("1" bold, "2" faint, "32" green, ...).
std::string coloured(const Terminal& terminal, const char* code, std::string_view text);

}  // namespace lorikeet::launcher
