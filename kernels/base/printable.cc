#include "kernels/base/printable.h"

namespace lorikeet {
namespace {

unsigned char byte_at(std::string_view text, size_t i) {
  return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
}

bool is_continuation(unsigned char byte) {
  return (byte & 0xC0) == 0x80;
}

}  // namespace

std::string printable(std::string_view text, size_t most) {
  size_t end = text.size();
  if (end > most) {
    end = most;
    while (end > 0 && is_continuation(byte_at(text, end))) --end;
  }
  std::string shown;
  for (size_t i = 0; i < end; ++i) {
    const unsigned char byte = byte_at(text, i), next = byte_at(text, i + 1);
    if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // U+0080 to U+009F, which have the codes of escape sequences
      shown += '?';
      ++i;
    } else {
      shown += is_control(text[i]) ? '?' : text[i];
    }
  }
  if (end < text.size()) shown += "...";
  return shown;
}

}  // namespace lorikeet
