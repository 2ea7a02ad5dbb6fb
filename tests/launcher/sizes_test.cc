#include "launcher/sizes.h"

#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

TEST(ParseBytes, TakesPlainNumbersAndPowersOf1024) {
  EXPECT_EQ(parse_bytes("0").value(), 0u);
  EXPECT_EQ(parse_bytes("1234").value(), 1234u);
  EXPECT_EQ(parse_bytes("3K").value(), 3u << 10);
  EXPECT_EQ(parse_bytes("512M").value(), 512u << 20);
  EXPECT_EQ(parse_bytes("2G").value(), 2ULL << 30);
  EXPECT_EQ(parse_bytes("2GiB").value(), 2ULL << 30);
  EXPECT_EQ(parse_bytes("2Gi").value(), 2ULL << 30);
  EXPECT_EQ(parse_bytes("1T").value(), 1ULL << 40);
}

TEST(ParseBytes, TakesPowersOf1000) {
  EXPECT_EQ(parse_bytes("2GB").value(), 2'000'000'000u);
  EXPECT_EQ(parse_bytes("3k").value(), 3000u);
  EXPECT_EQ(parse_bytes("5m").value(), 5'000'000u);
}

TEST(ParseBytes, TakesFractionsOfAUnit) {
  EXPECT_EQ(parse_bytes("1.5G").value(), 3ULL << 29);
  EXPECT_EQ(parse_bytes("0.25KB").value(), 250u);
}

TEST(ParseBytes, RefusesWhatIsNoNumberOrTooLarge) {
  for (const char* text :
       {"", "G", "-1", "1.5", "1.G", ".5G", "2GX", "2 G", "2Gb", "99999999999999999999", "1048577G"}) {
    EXPECT_FALSE(parse_bytes(text).has_value()) << text;
  }
}

TEST(ParseCount, TakesThousandsAndPowersOf1024) {
  EXPECT_EQ(parse_count("32768", 1 << 24).value(), 32768);
  EXPECT_EQ(parse_count("32k", 1 << 24).value(), 32000);
  EXPECT_EQ(parse_count("32K", 1 << 24).value(), 32768);
}

TEST(ParseCount, RefusesBytesAndMoreThanTheMost) {
  EXPECT_FALSE(parse_count("32KB", 1 << 24).has_value());
  EXPECT_EQ(parse_count("100", 99).error().message, "'100' is too large");
}

}  // namespace
}  // namespace lorikeet::launcher
