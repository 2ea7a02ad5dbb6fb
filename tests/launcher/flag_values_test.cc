#include "launcher/flag_values.h"

#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

TEST(FlagValues, TakeWholeNumbersAsTheyAreAndRefuseWhatWouldWrapAround) {
  for (const char* good : {"0", "7", "18446744073709551615"}) EXPECT_EQ(whole_number()(good), "") << good;
  for (const char* bad : {"-1", "18446744073709551616", "1.5", "", " 1", "1x", "0x1", "nan", "+1"}) {
    EXPECT_NE(whole_number()(bad), "") << bad;
  }
}

TEST(FlagValues, RefuseNumbersThatAreNone) {
  for (const char* good : {"0", "1", "0.5", "1e0"}) EXPECT_EQ(finite_number(0, 1)(good), "") << good;
  for (const char* bad : {"nan", "inf", "-inf", "-0.1", "1.1", "", "x", "1x"}) {
    EXPECT_NE(finite_number(0, 1)(bad), "") << bad;
  }
}

}  // namespace
}  // namespace lorikeet::launcher
