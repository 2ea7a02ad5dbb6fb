#include "launcher/units.h"

#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

TEST(Units, WritesBytesInPowersOf1024) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(1024), "1.00 KiB");
  EXPECT_EQ(bytes_text(1310720), "1.25 MiB");
  EXPECT_EQ(bytes_text(12ULL << 30), "12.0 GiB");
  EXPECT_EQ(bytes_text(1000ULL << 20), "0.98 GiB");
}

TEST(Units, WritesDurationsInTheUnitThatFits) {
  EXPECT_EQ(duration_text(0), "0 s");
  EXPECT_EQ(duration_text(850e-9), "850 ns");
  EXPECT_EQ(duration_text(26.6234e-6), "26.6 us");
  EXPECT_EQ(duration_text(2.1e-3), "2.10 ms");
  EXPECT_EQ(duration_text(12.34), "12.3 s");
  EXPECT_EQ(duration_text(245), "4 min 05 s");
  EXPECT_EQ(duration_text(7380), "2 h 03 min");
}

TEST(Units, GroupsDigits) {
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(1234567), "1,234,567");
  EXPECT_EQ(count_text(-1234), "-1,234");
  EXPECT_EQ(rate_text(0.523), "0.52");
  EXPECT_EQ(rate_text(8594.6), "8,595");
}

}  // namespace
}  // namespace lorikeet::launcher
