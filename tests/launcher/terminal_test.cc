#include "launcher/terminal.h"

#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

TEST(Terminal, CountsColumnsByCodePoints) {
  EXPECT_EQ(text_width("abc"), 3u);
  EXPECT_EQ(text_width("J\xC3\xBCrgen"), 6u);
  EXPECT_EQ(padded("\xC3\xBC", 3), "\xC3\xBC  ");
}

TEST(Terminal, ShortensToOneLine) {
  EXPECT_EQ(shortened("It was", 6), "It was");
  EXPECT_EQ(shortened("It\nwas\x1b[2J", 20), "It was [2J");
  EXPECT_EQ(shortened("It was cold", 8), "It wa...");
  EXPECT_EQ(shortened("\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC", 4), "\xC3\xBC...");
  EXPECT_EQ(shortened("It was", 2), "..");
}

TEST(Terminal, ColoursWhereColoursAreWanted) {
  EXPECT_EQ(coloured(Terminal{}, "32", "text"), "text");
  EXPECT_EQ(coloured(Terminal{true, true, 80}, "32", "text"), "\x1b[32mtext\x1b[0m");
}

}  // namespace
}  // namespace lorikeet::launcher
