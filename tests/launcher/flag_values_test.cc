#include "launcher/flag_values.h"

#include <gtest/gtest.h>

#include <string>

#include "launcher/sampling_flags.h"

namespace lorikeet::launcher {
namespace {

TEST(FlagValues, TakeWholeNumbersAsTheyAreAndRefuseWhatWouldWrapAround) {
  for (const char* good : {"0", "7", "18446744073709551615"}) EXPECT_EQ(whole_number()(good), "") << good;
  for (const char* bad : {"-1", "18446744073709551616", "1.5", "", " 1", "1x", "0x1", "nan", "+1"}) {
    EXPECT_NE(whole_number()(bad), "") << bad;
  }
}

TEST(FlagValues, TakeCountsAndSayWhichThereAre) {
  for (const char* good : {"1", "7", "2147483647"}) EXPECT_EQ(count_from(1)(good), "") << good;
  EXPECT_EQ(count_from(0)("0"), "");
  EXPECT_EQ(count_from(1)("0"), "0 is not a whole number from 1 to 2147483647");
  EXPECT_EQ(count_from(0)("-1"), "-1 is not a whole number from 0 to 2147483647");
  for (const char* bad : {"2147483648", "1.5", "", "1x", "1e3", "nan"}) EXPECT_NE(count_from(1)(bad), "") << bad;
}

TEST(FlagValues, AreToldWithTheirFlag) {
  CLI::App app;
  comm::GenerateRequest request;
  add_sampling_flags(app, request);
  std::string said;
  try {
    app.parse("--max-tokens 0");
  } catch (const CLI::Error& error) {
    said = error.what();
  }
  EXPECT_EQ(said, "--max-tokens: 0 is not a whole number from 1 to 2147483647");
}

TEST(FlagValues, TakeTokenIdsAsPeopleWriteListsAndAsJsonDoes) {
  const auto parse = [](const std::vector<std::string>& words) {
    CLI::App app;
    std::vector<std::vector<int32_t>> lists;
    add_token_ids(
        app, "--ids", [&lists](std::vector<int32_t> ids) { lists.push_back(std::move(ids)); }, "");
    std::vector<std::string> rest;
    app.add_option("REST", rest);
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    app.parse(reversed);
    return lists;
  };
  using Lists = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(parse({"--ids", "1,2,3"}), (Lists{{1, 2, 3}}));
  EXPECT_EQ(parse({"--ids", "7", "rest", "--ids=0, 2147483647"}), (Lists{{7}, {0, 2147483647}}));
  for (const char* bad : {"", "1,", ",1", "1,,2", "1 2", "-1", "2147483648", "1.5", "x", "1x", "]", "[", "0x1"}) {
    std::string said;
    try {
      parse({"--ids", bad});
    } catch (const CLI::Error& error) {
      said = error.what();
    }
    EXPECT_EQ(said, std::string("--ids: ") + bad + " is no list of token ids, such as 1,2,3");
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
