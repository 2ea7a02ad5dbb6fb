#include "model/chat/jinja/string_literal.h"

#include "model/chat/jinja/text.h"
#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {
namespace {

// `count` digits at most of the base, at least `least`; moves *at behind them.
char32_t digits(std::string_view text, size_t* at, int base, size_t least, size_t count, int line) {
  char32_t value = 0;
  size_t taken = 0;
  for (; taken < count && *at < text.size(); ++taken, ++*at) {
    const char c = text[*at];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) break;
    value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
  }
  if (taken < least) raise("line {}: a truncated escape in a string", line);
  if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) raise("line {}: an escape that is no character", line);
  return value;
}

}  // namespace

std::string unescape(std::string_view literal, int line) {
  std::string out;
  for (size_t i = 0; i < literal.size();) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      out += literal[i++];
      continue;
    }
    const char c = literal[i + 1];
    i += 2;
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t letter = kLetters.find(c); letter != std::string_view::npos) {
      out += kValues[letter];
    } else if (c == 'x') {
      append_code_point(digits(literal, &i, 16, 2, 2, line), &out);
    } else if (c == 'u') {
      append_code_point(digits(literal, &i, 16, 4, 4, line), &out);
    } else if (c == 'U') {
      append_code_point(digits(literal, &i, 16, 8, 8, line), &out);
    } else if (c >= '0' && c <= '7') {
      --i;
      append_code_point(digits(literal, &i, 8, 1, 3, line), &out);
    } else if (c == 'N') {
      raise("line {}: characters by name are not served in strings", line);
    } else if (c != '\n') {  // a line that goes on; any other pair stays as it is
      out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace lorikeet::model::jinja
