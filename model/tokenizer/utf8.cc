#include "model/tokenizer/utf8.h"

#include <algorithm>
#include <cstring>

namespace lorikeet::model {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// How many leading bytes are ASCII, in whole words of 8 (the callers' loops take the rest).
size_t ascii_words(std::string_view bytes) {
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, sizeof word);
    if (word & 0x8080808080808080u) break;
  }
  return i;
}

}  // namespace

Utf8Head utf8_head(std::string_view bytes) {
  auto byte_at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = byte_at(0);
  if (lead < 0x80) return {lead, 1, true, false};
  // The second byte's range excludes overlong forms, surrogates and values above U+10FFFF.
  unsigned second_low = 0x80, second_high = 0xBF;
  uint8_t length = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) second_low = 0xA0;
    if (lead == 0xED) second_high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) second_low = 0x90;
    if (lead == 0xF4) second_high = 0x8F;
  } else {
    return {0, 1, false, false};
  }
  char32_t code_point = lead & (0x7Fu >> length);
  for (uint8_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {0, i, false, true};
    const unsigned low = i == 1 ? second_low : 0x80, high = i == 1 ? second_high : 0xBF;
    if (byte_at(i) < low || byte_at(i) > high) return {0, i, false, false};
    code_point = code_point << 6 | (byte_at(i) & 0x3Fu);
  }
  return {code_point, length, true, false};
}

bool is_valid_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    bytes.remove_prefix(ascii_words(bytes));
    if (bytes.empty()) return true;
    const Utf8Head head = utf8_head(bytes);
    if (!head.valid) return false;
    bytes.remove_prefix(head.length);
  }
  return true;
}

void append_repaired_utf8(std::string_view bytes, std::string* out) {
  while (!bytes.empty()) {
    size_t valid = 0;
    while (valid < bytes.size()) {
      valid += ascii_words(bytes.substr(valid));
      if (valid == bytes.size()) break;
      const Utf8Head head = utf8_head(bytes.substr(valid));
      if (!head.valid) break;
      valid += head.length;
    }
    out->append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    out->append(kReplacement);
    bytes.remove_prefix(utf8_head(bytes).length);
  }
}

size_t unfinished_utf8_suffix(std::string_view bytes) {
  for (size_t length = 1; length <= std::min<size_t>(3, bytes.size()); ++length) {
    const auto byte = static_cast<unsigned char>(bytes[bytes.size() - length]);
    if (byte >= 0x80 && byte <= 0xBF) continue;  // a continuation: its lead byte is further back
    const Utf8Head head = utf8_head(bytes.substr(bytes.size() - length));
    return head.cut_short && head.length == length ? length : 0;
  }
  return 0;
}

}  // namespace lorikeet::model
