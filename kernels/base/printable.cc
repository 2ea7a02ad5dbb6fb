#include "kernels/base/printable.h"

#include <utf8proc.h>

namespace lorikeet {
namespace {

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Whether a character ends a line, has the code of an escape sequence, or turns the direction of what is around it.
bool is_order(utf8proc_int32_t character) {
  const utf8proc_property_t& property = *utf8proc_get_property(character);
  switch (property.bidi_class) {
    case UTF8PROC_BIDI_CLASS_LRE:
    case UTF8PROC_BIDI_CLASS_LRO:
    case UTF8PROC_BIDI_CLASS_RLE:
    case UTF8PROC_BIDI_CLASS_RLO:
    case UTF8PROC_BIDI_CLASS_PDF:
    case UTF8PROC_BIDI_CLASS_LRI:
    case UTF8PROC_BIDI_CLASS_RLI:
    case UTF8PROC_BIDI_CLASS_FSI:
    case UTF8PROC_BIDI_CLASS_PDI:
      return true;
    default:
      break;
  }
  return property.category == UTF8PROC_CATEGORY_CC || property.category == UTF8PROC_CATEGORY_ZL ||
         property.category == UTF8PROC_CATEGORY_ZP;
}

}  // namespace

std::string printable(std::string_view text, size_t most) {
  size_t end = text.size();
  if (end > most) {
    end = most;
    while (end > 0 && is_continuation(text[end])) --end;
  }
  std::string shown;
  for (size_t i = 0; i < end;) {
    utf8proc_int32_t character = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                                     static_cast<utf8proc_ssize_t>(end - i), &character);
    const size_t bytes = length > 0 ? static_cast<size_t>(length) : 1;
    shown += length > 0 && !is_order(character) ? text.substr(i, bytes) : "?";
    i += bytes;
  }
  if (end < text.size()) shown += "...";
  return shown;
}

}  // namespace lorikeet
