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
            "?1m\xC2")
      << "CSI of eight bits";
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
