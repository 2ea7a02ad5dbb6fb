// Text from outside as a part of what people read.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lorikeet {

inline constexpr size_t kMostPrintable = 120;  // bytes: of a name

// Whether a terminal or a log takes the byte for an order rather than a character.
constexpr bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

// A name or a sentence fit to stand within a line: control characters of UTF-8, which would end the line or move a
// terminal's cursor, become '?', and what is longer is cut between two characters and ends in "...".
std::string printable(std::string_view text, size_t most = kMostPrintable);

}  // namespace lorikeet
