#include "kernels/base/json_nesting.h"

#include <gtest/gtest.h>

#include <string>

namespace lorikeet {
namespace {

TEST(JsonNesting, CountsBracketsThatAreOpenAtOnce) {
  EXPECT_FALSE(nests_deeper("", 0));
  EXPECT_FALSE(nests_deeper("7", 0));
  EXPECT_TRUE(nests_deeper("[", 0));
  EXPECT_FALSE(nests_deeper(R"([[], {"a": [1]}, []])", 3));
  EXPECT_TRUE(nests_deeper(R"([[], {"a": [1]}, []])", 2));
  EXPECT_TRUE(nests_deeper(std::string(1'000'000, '['), 999'999));
}

TEST(JsonNesting, CountsNoneInStrings) {
  EXPECT_FALSE(nests_deeper(R"({"[[[": "{{\"[[\\"})", 1));
  EXPECT_TRUE(nests_deeper(R"(["\\", [[]]])", 2));
}

TEST(JsonNesting, LivesWithWhatIsNoJson) {
  EXPECT_FALSE(nests_deeper("]]]]}", 0));
  EXPECT_TRUE(nests_deeper("]]][", 0));
  EXPECT_FALSE(nests_deeper("\"\\", 0)) << "a string that ends within an escape";
}

}  // namespace
}  // namespace lorikeet
