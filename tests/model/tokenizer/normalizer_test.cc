#include "model/tokenizer/normalizer.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <utility>

namespace lorikeet::model {
namespace {

void append_utf8(char32_t code_point, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

// The whole text through utf8proc at once.
std::string reference(const std::string& text) {
  utf8proc_uint8_t* mapped = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string normalized = reinterpret_cast<const char*>(mapped);
  std::free(mapped);
  return normalized;
}

std::string nfc(const std::string& text) {
  std::string normalized;
  append_nfc(text, &normalized);
  return normalized;
}

// append_nfc cuts text before the characters that is_surely_nfc passes. That is right if each of them is its own NFC,
// has combining class 0, and never stands behind another character in a canonical decomposition.
TEST(Normalizer, CutsOnlyBeforeCharactersThatComposeWithNothingBefore) {
  std::set<char32_t> followers;
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    utf8proc_int32_t decomposed[16];
    int boundary = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), decomposed, 16,
                                               static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE), &boundary);
    for (utf8proc_ssize_t i = 1; i < count; ++i) followers.insert(static_cast<char32_t>(decomposed[i]));
  }
  ASSERT_TRUE(followers.contains(0x301));
  ASSERT_TRUE(followers.contains(0x11A8));
  size_t inert = 0;
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(c, &text);
    if (!is_surely_nfc(text)) continue;
    ++inert;
    ASSERT_EQ(reference(text), text) << std::hex << static_cast<uint32_t>(c);
    ASSERT_EQ(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class, 0)
        << std::hex << static_cast<uint32_t>(c);
    ASSERT_FALSE(followers.contains(c)) << std::hex << static_cast<uint32_t>(c);
  }
  EXPECT_GT(inert, 40000u);
}

TEST(Normalizer, PassesAsciiAndCommonScriptsAtOnce) {
  EXPECT_TRUE(is_surely_nfc(""));
  EXPECT_TRUE(is_surely_nfc("plain ASCII, déjà vu, Привет, 你好, こんにちは, 한국어, 😀"));
  EXPECT_FALSE(is_surely_nfc("cafe\u0301"));
}

TEST(Normalizer, ComposesAcrossTheBordersOfScripts) {
  EXPECT_EQ(nfc("cafe\u0301 e\u0323\u0301 \u1100\u1161\u11A8 가\u11A8"), "café ẹ\u0301 각 각");
  EXPECT_EQ(nfc("\u0301"), "\u0301");
  EXPECT_EQ(nfc("か\u3099"), "が");
  EXPECT_EQ(nfc("\u212B"), "Å");
  EXPECT_EQ(nfc(std::string("a\0e\u0301", 5)), std::string("a\0é", 4));
}

TEST(Normalizer, EqualsNormalisingTheWholeTextForRandomTexts) {
  std::mt19937 random(11);
  const std::pair<char32_t, char32_t> ranges[] = {
      {0x20, 0x7E},     {0xC0, 0x24F},    {0x300, 0x36F},   {0x370, 0x5FF},   {0x900, 0xDFF}, {0x1100, 0x11FF},
      {0x1E00, 0x1FFF}, {0x3040, 0x30FF}, {0xAC00, 0xD7A3}, {0xF900, 0xFB4F}, {0x1, 0xD7FF},  {0x10000, 0x1FFFF}};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = random() % 12; i > 0; --i) {
      const auto& [first, last] = ranges[random() % std::size(ranges)];
      append_utf8(first + random() % (last - first + 1), &text);
    }
    ASSERT_EQ(nfc(text), reference(text)) << text;
  }
}

}  // namespace
}  // namespace lorikeet::model
