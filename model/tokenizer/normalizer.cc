#include "model/tokenizer/normalizer.h"

#include <glog/logging.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "model/tokenizer/utf8.h"

namespace lorikeet::model {
namespace {

// Ranges (inclusive) in which every character is its own NFC, combines with nothing before it and has combining class
// 0; the test holds them against utf8proc. They cover most living text; what they leave out only costs time.
constexpr std::array<std::array<char32_t, 2>, 17> kInert = {{
    {0x0000, 0x02FF},  // Latin
    {0x0391, 0x03CE},  // Greek
    {0x0400, 0x0482},  // Cyrillic
    {0x048A, 0x0590},  // Cyrillic, Armenian
    {0x05D0, 0x060F},  // Hebrew, Arabic
    {0x0620, 0x064A},  // Arabic
    {0x0904, 0x0928},  // Devanagari
    {0x0E01, 0x0E37},  // Thai
    {0x2010, 0x20CF},  // punctuation, currency signs
    {0x2190, 0x2328},  // arrows, mathematical operators
    {0x232B, 0x2ADB},  // technical and geometric signs, dingbats
    {0x2E80, 0x3029},  // CJK radicals and punctuation
    {0x3030, 0x3098},  // Hiragana
    {0x309B, 0x312F},  // Katakana, Bopomofo
    {0x3400, 0x9FFF},  // CJK ideographs
    {0xAC00, 0xD7A3},  // Hangul syllables
    {0xFF00, 0xFFEF},  // full-width forms
}};
constexpr char32_t kFirstEmoji = 0x1F000, kLastEmoji = 0x1FAFF;

bool is_inert(char32_t c) {
  const auto* range =
      std::upper_bound(kInert.begin(), kInert.end(), c, [](char32_t value, const auto& r) { return value < r[0]; });
  if (range != kInert.begin() && c <= range[-1][1]) return true;
  return c >= kFirstEmoji && c <= kLastEmoji;
}

// The first character at `from` or later that is not inert: {its begin, the begin of the character before it}; both are
// text.size() if there is none.
struct NotInert {
  size_t begin, previous;
};

NotInert find_not_inert(std::string_view text, size_t from) {
  size_t previous = from;
  for (size_t i = from; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0xCC) {  // ASCII, or a byte of a character below U+0300
      if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) previous = i;
      ++i;
      continue;
    }
    const Utf8Head head = utf8_head(text.substr(i));
    if (!is_inert(head.code_point)) return {i, previous};
    previous = i;
    i += head.length;
  }
  return {text.size(), text.size()};
}

void append_normalized(std::string_view text, std::string* out) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(mapped, &std::free);
  CHECK_GE(length, 0) << utf8proc_errmsg(length);  // valid UTF-8 of sane size cannot fail
  out->append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

}  // namespace

bool is_surely_nfc(std::string_view text) {
  return find_not_inert(text, 0).begin == text.size();
}

void append_nfc(std::string_view text, std::string* out) {
  // An inert character composes with nothing before it, so text falls apart there: only from the one before a character
  // that is not inert to the next inert one is there anything to do.
  for (size_t from = 0; from < text.size();) {
    const NotInert found = find_not_inert(text, from);
    out->append(text.substr(from, found.previous - from));
    size_t end = found.begin;
    while (end < text.size()) {
      const Utf8Head head = utf8_head(text.substr(end));
      if (is_inert(head.code_point)) break;
      end += head.length;
    }
    if (end > found.previous) append_normalized(text.substr(found.previous, end - found.previous), out);
    from = end;
  }
}

}  // namespace lorikeet::model
