// UTF-8 as the tokenizer needs it: checking, repairing, and cutting a byte stream between characters.
// Source: the Unicode Standard, section 3.9 (table 3-7; invalid bytes are replaced by maximal subparts, as WHATWG
// does).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lorikeet::model {

// The character at the head of bytes: `length` bytes (1 to 4) that are a code point, or that can never become one.
// A head cut off by the end of bytes is not valid; cut_short tells that more bytes could complete it.
struct Utf8Head {
  char32_t code_point = 0;  // meaningful if valid
  uint8_t length = 1;
  bool valid = false;
  bool cut_short = false;
};

Utf8Head utf8_head(std::string_view bytes);  // bytes is not empty

bool is_valid_utf8(std::string_view bytes);

// Appends bytes to out, each maximal invalid run as one U+FFFD.
void append_repaired_utf8(std::string_view bytes, std::string* out);

// How many bytes at the end (0 to 3) begin a character that more bytes could complete.
size_t unfinished_utf8_suffix(std::string_view bytes);

}  // namespace lorikeet::model
