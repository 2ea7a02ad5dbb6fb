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

// A name or a sentence fit to stand within a line: what is no UTF-8, and characters that would end the line, move a
// terminal's cursor or turn the direction of what is around them, become '?'. What is longer is cut between two characters
// and ends in "...".
std::string printable(std::string_view text, size_t most = kMostPrintable);

}  // namespace lorikeet
