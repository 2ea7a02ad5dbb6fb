#include "kernels/base/printable.h"

#include <gtest/gtest.h>

namespace lorikeet {
namespace {

TEST(Printable, LeavesTextAsItIs) {
  EXPECT_EQ(printable("model.layers.0.mlp"), "model.layers.0.mlp");
  EXPECT_EQ(printable("K\xC3\xB6nig \xC2\xA0 \xE4\xB8\x80"), "K\xC3\xB6nig \xC2\xA0 \xE4\xB8\x80");
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, HasNothingThatEndsALineOrSpeaksToATerminal) {
  EXPECT_EQ(printable("a\nb\r\x1b[1m\x7f\tc"), "a?b??[1m??c");
  EXPECT_EQ(printable(std::string_view("\0x", 2)), "?x");
  EXPECT_EQ(printable("\xC2\x9B"
                      "1m\xC2"),
            "?1m?")
      << "CSI of eight bits, and a character that is cut off";
}

TEST(Printable, HasNothingThatIsNoTextOrTurnsTheDirectionOfOthers) {
  EXPECT_EQ(printable("a\xFF\xC0\x80z"), "a???z");
  EXPECT_EQ(printable("a\xE2\x80\xA8z\xE2\x80\xA9"), "a?z?") << "ends of lines and of paragraphs";
  EXPECT_EQ(printable("a\xE2\x80\xAEz\xE2\x81\xA6"), "a?z?") << "from right to left";
  EXPECT_EQ(printable("\xD7\xA9 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB"),
            "\xD7\xA9 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB")
      << "a letter that is written so, and a joiner";
}

TEST(Printable, IsCutBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdefg", 6), "abcdef...");
  EXPECT_EQ(printable("abcd\xE4\xB8\x80z", 6), "abcd...");
  EXPECT_EQ(printable("abc\xE4\xB8\x80z", 6), "abc\xE4\xB8\x80...");
  EXPECT_EQ(printable("\x80\x80", 1), "...") << "no UTF-8, and no end to look for";
}

}  // namespace
}  // namespace lorikeet
