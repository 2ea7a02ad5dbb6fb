#include "model/chat/jinja/letter_case.h"

#include <utf8proc.h>

#include <string>

namespace lorikeet::model::jinja {
namespace {

using Category = utf8proc_category_t;

utf8proc_int32_t code(char32_t c) {
  return static_cast<utf8proc_int32_t>(c);
}
bool is_upper(char32_t c) {
  const Category category = utf8proc_category(code(c));
  return category == UTF8PROC_CATEGORY_LU;
}
bool is_title(char32_t c) {
  return utf8proc_category(code(c)) == UTF8PROC_CATEGORY_LT;
}
bool is_lower(char32_t c) {
  return utf8proc_category(code(c)) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}
bool is_cased(char32_t c) {
  return is_upper(c) || is_lower(c) || is_title(c);
}
bool is_letter(char32_t c) {
  const Category category = utf8proc_category(code(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool is_number(char32_t c) {
  const Category category = utf8proc_category(code(c));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}
bool is_decimal(char32_t c) {
  return utf8proc_category(code(c)) == UTF8PROC_CATEGORY_ND;
}
bool is_digit(char32_t c) {  // decimals, and the small ones above and below the line
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089);
}

// What a character is folded to; of ligatures and the like several characters.
std::u32string folded(char32_t c) {
  utf8proc_int32_t buffer[8];
  int boundary = 0;
  const auto size = utf8proc_decompose_char(code(c), buffer, 8, UTF8PROC_CASEFOLD, &boundary);
  return size < 1 || size > 8 ? std::u32string(1, c) : std::u32string(buffer, buffer + size);
}

// Characters that become several in another case: those that fold to several and are not in that case already.
bool becomes_several(char32_t c) {
  return c >= 0x80 && !is_upper(c) && folded(c).size() > 1;
}

void append_upper(char32_t c, std::string* out) {
  const std::u32string parts = becomes_several(c) ? folded(c) : std::u32string(1, c);
  for (const char32_t part : parts) append_code_point(static_cast<char32_t>(utf8proc_toupper(code(part))), out);
}

void append_lower(char32_t c, std::string* out) {
  const std::u32string parts = c == 0x130 ? folded(c) : std::u32string(1, c);
  for (const char32_t part : parts) append_code_point(static_cast<char32_t>(utf8proc_tolower(code(part))), out);
}

void append_title(char32_t c, std::string* out) {
  const std::u32string parts = becomes_several(c) ? folded(c) : std::u32string(1, c);
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto part = code(parts[i]);
    append_code_point(static_cast<char32_t>(i == 0 ? utf8proc_totitle(part) : utf8proc_tolower(part)), out);
  }
}

}  // namespace

Text in_case(const Text& text, std::string_view name) {
  std::string out;
  out.reserve(text.size());
  bool first = true;    // of the text
  bool inside = false;  // of a word: the character before is cased
  for (size_t at = 0; at < text.size(); at += code_point_length(text.view(), at)) {
    const char32_t c = code_point_at(text.view(), at);
    bool separates = false;  // Jinja's words end at white space, hyphens and opening brackets
    if (name == "words") separates = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (name == "upper") {
      append_upper(c, &out);
    } else if (name == "swapcase") {
      is_upper(c) ? append_lower(c, &out) : append_upper(c, &out);
    } else if (name == "casefold") {
      for (const char32_t part : folded(c)) append_code_point(part, &out);
    } else if (name == "words" && !separates && !inside) {
      append_upper(c, &out);
    } else if ((name == "title" && !inside) || (name == "capitalize" && first)) {
      append_title(c, &out);
    } else {
      append_lower(c, &out);
    }
    first = false;
    inside = name == "words" ? !separates : is_cased(c);
  }
  Text result = Text::as(text, std::move(out));
  return text.is_markup() && name != "words" ? result.markup() : result;  // which Jinja joins of plain pieces
}

bool is_of_class(std::string_view text, std::string_view name) {
  if (name == "isascii") return is_ascii(text);
  if (text.empty()) return false;
  bool any_cased = false;
  for (size_t at = 0; at < text.size(); at += code_point_length(text, at)) {
    const char32_t c = code_point_at(text, at);
    any_cased = any_cased || is_cased(c);
    const bool fits = name == "isspace"     ? is_space(c)
                      : name == "isalpha"   ? is_letter(c)
                      : name == "isdecimal" ? is_decimal(c)
                      : name == "isdigit"   ? is_digit(c)
                      : name == "isnumeric" ? is_number(c)
                      : name == "isalnum"   ? is_letter(c) || is_number(c)
                      : name == "isupper"   ? !is_lower(c) && !is_title(c)
                                            : !is_upper(c) && !is_title(c);
    if (!fits) return false;
  }
  return any_cased || (name != "isupper" && name != "islower");
}

}  // namespace lorikeet::model::jinja
