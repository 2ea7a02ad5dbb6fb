#include "comm/codec/json_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace lorikeet::comm {
namespace {

enum class Colour : uint8_t { red, green };
constexpr Colour last_enumerator(Colour) {
  return Colour::green;
}

struct Inner {
  std::string name;
  int8_t small = 0;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("name", s.name);
    visit("small", s.small);
  }
};

struct Outer {
  bool flag = true;
  uint64_t big = 0;
  double number = 0;
  float single = 0;
  Colour colour = Colour::red;
  std::optional<int32_t> maybe;
  std::vector<std::string> strings;
  std::vector<Inner> inners;
  std::vector<std::pair<int32_t, float>> pairs;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("flag", s.flag);
    visit("big", s.big);
    visit("number", s.number);
    visit("single", s.single);
    visit("colour", s.colour);
    visit("maybe", s.maybe);
    visit("strings", s.strings);
    visit("inners", s.inners);
    visit("pairs", s.pairs);
  }
};

std::string error_of(std::string_view text) {
  const Result<Outer> value = from_json<Outer>(text);
  return value ? "read" : value.error().message;
}

// With all that must be there, and more.
std::string with(std::string_view more) {
  return fmt::format(R"({{"big":1,"number":1,"single":1,"colour":0{}{}}})", more.empty() ? "" : ",", more);
}

TEST(JsonCodec, WritesTheFieldsByName) {
  Outer outer;
  outer.big = std::numeric_limits<uint64_t>::max();
  outer.number = 0.1;
  outer.single = -2.5F;
  outer.colour = Colour::green;
  outer.strings = {"a\"b", "\xE2\x82\xAC"};
  outer.inners = {{"x", -3}};
  outer.pairs = {{4, 0.5F}};
  EXPECT_EQ(nlohmann::json::parse(to_json(outer)), nlohmann::json::parse(R"({"flag":true,"big":18446744073709551615,
    "number":0.1,"single":-2.5,"colour":1,"maybe":null,"strings":["a\"b","\u20ac"],"inners":[{"name":"x","small":-3}],
    "pairs":[[4,0.5]]})"));
}

TEST(JsonCodec, ReadsBackWhatItWrote) {
  Outer outer;
  outer.flag = false;
  outer.big = std::numeric_limits<uint64_t>::max();
  outer.number = 0.1;
  outer.single = 0.1F;
  outer.colour = Colour::green;
  outer.maybe = std::numeric_limits<int32_t>::min();
  outer.strings = {"", "two"};
  outer.inners = {{"x", -128}, {"y", 127}};
  outer.pairs = {{1, 1e-40F}, {2, -3.4e38F}};
  const Result<Outer> read = from_json<Outer>(to_json(outer));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(encode(*read), encode(outer));
}

TEST(JsonCodec, WritesNullForNumbersThatJsonDoesNotHave) {
  Outer outer;
  outer.number = std::numeric_limits<double>::infinity();
  const nlohmann::json written = to_json_value(outer);
  EXPECT_TRUE(written["number"].is_null());
  const Result<Outer> read = from_json_value<Outer>(written);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_TRUE(std::isnan(read->number));
}

TEST(JsonCodec, ReplacesWhatIsNotUtf8) {
  Inner inner;
  inner.name = "a\xFF";
  EXPECT_EQ(to_json(inner), "{\"name\":\"a\xEF\xBF\xBD\",\"small\":0}");
}

TEST(JsonCodec, LeavesDefaultsWhereFlagsListsAndOptionalsAreAbsentOrNull) {
  for (const std::string& text :
       {with(""), with(R"("flag":null,"maybe":null,"strings":null,"inners":null,"pairs":null)")}) {
    const Result<Outer> read = from_json<Outer>(text);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_TRUE(read->flag);
    EXPECT_FALSE(read->maybe);
    EXPECT_TRUE(read->strings.empty());
  }
}

TEST(JsonCodec, TakesOneStringForAListOfStrings) {
  const Result<Outer> read = from_json<Outer>(with(R"("strings":"one")"));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->strings, std::vector<std::string>{"one"});
}

TEST(JsonCodec, TakesWholeNumbersWithAPointForIntegers) {
  const Result<Outer> read = from_json<Outer>(with(R"("maybe":-1000.0,"pairs":[[3.0,0.5]])"));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->maybe, -1000);
  EXPECT_EQ(read->pairs[0].first, 3);
  EXPECT_EQ(error_of(with(R"("maybe":2147483648.0)")),
            "maybe must be within -2147483648 .. 2147483647, not 2147483648");
  EXPECT_EQ(error_of(with(R"("maybe":1e300)")), "maybe must be an integer, not 1e+300");
}

TEST(JsonCodec, TakesAnObjectForAListOfPairsThatBeginWithAnInteger) {
  const Result<Outer> read = from_json<Outer>(with(R"("pairs":{"7":-1.5,"-2":3})"));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->pairs.size(), 2u);
  EXPECT_NE(std::find(read->pairs.begin(), read->pairs.end(), std::pair(7, -1.5F)), read->pairs.end());
  EXPECT_NE(std::find(read->pairs.begin(), read->pairs.end(), std::pair(-2, 3.0F)), read->pairs.end());
  EXPECT_EQ(error_of(with(R"("pairs":{"x":1})")), R"(pairs has the key "x", which is no integer in range)");
  EXPECT_EQ(error_of(with(R"("pairs":{"99999999999":1})")),
            R"(pairs has the key "99999999999", which is no integer in range)");
  EXPECT_EQ(error_of(with(R"("pairs":{"1":"x"})")), "pairs.1 must be a number, not a string");
}

struct Ended {
  std::optional<std::variant<std::string, int32_t>> by;
  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("by", s.by);
  }
};

TEST(JsonCodec, WritesAStringOrAnIntegerAsWhatItIs) {
  EXPECT_EQ(to_json(Ended{"END"}), R"({"by":"END"})");
  EXPECT_EQ(to_json(Ended{2045}), R"({"by":2045})");
  EXPECT_EQ(to_json(Ended{}), R"({"by":null})");
  EXPECT_EQ(std::get<std::string>(from_json<Ended>(R"({"by":"5"})")->by.value()), "5");
  EXPECT_EQ(std::get<int32_t>(from_json<Ended>(R"({"by":5})")->by.value()), 5);
  EXPECT_FALSE(from_json<Ended>(R"({"by":null})")->by);
  EXPECT_EQ(from_json<Ended>(R"({"by":[]})").error().message, "by must be a string or an integer, not a list");
}

TEST(JsonCodec, SaysWhatIsMissing) {
  EXPECT_EQ(error_of("{}"), "big is missing");
  EXPECT_EQ(error_of(R"({"big":null})"), "big must not be null");
  EXPECT_EQ(error_of(with(R"("inners":[{"name":"x","small":1},{"small":1}])")), "inners[1].name is missing");
}

TEST(JsonCodec, SaysWhatIsOfTheWrongType) {
  EXPECT_EQ(error_of("5"), "the message must be an object, not a number");
  EXPECT_EQ(error_of("[]"), "the message must be an object, not a list");
  EXPECT_EQ(error_of(with(R"("flag":1)")), "flag must be a boolean, not a number");
  EXPECT_EQ(error_of(with(R"("maybe":"1")")), "maybe must be an integer, not a string");
  EXPECT_EQ(error_of(with(R"("maybe":1.5)")), "maybe must be an integer, not 1.5");
  EXPECT_EQ(error_of(with(R"("maybe":true)")), "maybe must be an integer, not a boolean");
  EXPECT_EQ(error_of(with(R"("strings":[1])")), "strings[0] must be a string, not a number");
  EXPECT_EQ(error_of(with(R"("strings":{})")), "strings must be a list, not an object");
  EXPECT_EQ(error_of(with(R"("inners":[{"name":null,"small":1}])")), "inners[0].name must not be null");
  EXPECT_EQ(error_of(with(R"("inners":["x"])")), "inners[0] must be an object, not a string");
  EXPECT_EQ(error_of(with(R"("pairs":[[1,2,3]])")), "pairs[0] must be a list of two");
  EXPECT_EQ(error_of(with(R"("pairs":[["1",2]])")), "pairs[0][0] must be an integer, not a string");
  EXPECT_EQ(error_of(R"({"big":1,"number":"1"})"), "number must be a number, not a string");
}

TEST(JsonCodec, SaysWhatIsOutOfRange) {
  EXPECT_EQ(error_of(R"({"big":-1})"), "big must be within 0 .. 18446744073709551615, not -1");
  EXPECT_EQ(error_of(R"({"big":18446744073709551616})"), "big must be an integer, not 1.8446744073709552e+19");
  EXPECT_EQ(error_of(with(R"("maybe":2147483648)")), "maybe must be within -2147483648 .. 2147483647, not 2147483648");
  EXPECT_EQ(error_of(with(R"("inners":[{"name":"x","small":128}])")),
            "inners[0].small must be within -128 .. 127, not 128");
  EXPECT_EQ(error_of(R"({"big":1,"number":1,"single":1e39,"colour":0})"), "single is too large: 1e+39");
  EXPECT_EQ(error_of(R"({"big":1,"number":1,"single":1,"colour":2})"), "colour has no value 2");
}

TEST(JsonCodec, NamesAnUnknownField) {
  EXPECT_EQ(error_of(with(R"("colours":1)")), R"(the message has an unknown field "colours")");
  EXPECT_EQ(error_of(with(R"("inners":[{"name":"x","small":1,"large":2}])")),
            R"(inners[0] has an unknown field "large")");
  EXPECT_LT(error_of(with(fmt::format(R"("{}":1)", std::string(10'000, 'k')))).size(), 200u);
}

TEST(JsonCodec, PassesOverUnknownFieldsAndMissingOnesOfAnotherVersion) {
  const auto inner = from_json<Inner>(R"({"name":"x","large":2})", {}, JsonKeys::any);
  ASSERT_TRUE(inner) << inner.error().message;
  EXPECT_EQ(inner->name, "x");
  EXPECT_EQ(inner->small, 0);
  const auto wrong = from_json<Inner>(R"({"name":1})", {}, JsonKeys::any);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, "name must be a string, not a number");
}

}  // namespace
}  // namespace lorikeet::comm
