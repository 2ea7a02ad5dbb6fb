#include "model/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace lorikeet::model {
namespace {

std::string encode(char32_t c) {
  std::string out;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
  }
  if (c >= 0x80) out += static_cast<char>(0x80 | (c & 0x3F));
  return out;
}

std::string repaired(std::string_view bytes) {
  std::string out;
  append_repaired_utf8(bytes, &out);
  return out;
}

TEST(Utf8, ReadsEveryCodePointAndNoSurrogate) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    const std::string bytes = encode(c);
    const Utf8Head head = utf8_head(bytes);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    ASSERT_EQ(head.valid, !surrogate) << static_cast<uint32_t>(c);
    if (surrogate) continue;
    ASSERT_EQ(head.code_point, c);
    ASSERT_EQ(head.length, bytes.size());
    for (size_t size = 1; size < bytes.size(); ++size) {
      ASSERT_TRUE(utf8_head(bytes.substr(0, size)).cut_short);
      ASSERT_EQ(unfinished_utf8_suffix(std::string("x").append(bytes, 0, size)), size);
    }
    ASSERT_EQ(unfinished_utf8_suffix(bytes), 0u);
  }
}

TEST(Utf8, ReplacesMaximalSubparts) {
  // Table 3-8 of the Unicode Standard and its like.
  const std::pair<std::string, std::string> cases[] = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "\uFFFD\uFFFD\uFFFD\uFFFD\x41"},
      {"abcdefgh\xE6", "abcdefgh\uFFFD"},
      {"", ""},
  };
  for (const auto& [bytes, expected] : cases) {
    EXPECT_EQ(repaired(bytes), expected);
    EXPECT_EQ(is_valid_utf8(bytes), bytes == expected);
    EXPECT_TRUE(is_valid_utf8(expected));
  }
}

TEST(Utf8, FindsASuffixThatMoreBytesCouldComplete) {
  EXPECT_EQ(unfinished_utf8_suffix(""), 0u);
  EXPECT_EQ(unfinished_utf8_suffix("\x80"), 0u);
  EXPECT_EQ(unfinished_utf8_suffix("\x80\x80\x80\x80"), 0u);
  EXPECT_EQ(unfinished_utf8_suffix("\xFF"), 0u);
  EXPECT_EQ(unfinished_utf8_suffix("\xE0\x80"), 0u);  // overlong: can never be completed
  EXPECT_EQ(unfinished_utf8_suffix("\xF0\x9F\x98"), 3u);
  EXPECT_EQ(unfinished_utf8_suffix("\xC3\xA9\x80"), 0u);  // complete, and a byte too many
}

}  // namespace
}  // namespace lorikeet::model
