#include "comm/codec/bounded_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace lorikeet::comm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  const Result<json> value = parse_bounded_json(text, limits);
  return value ? "parsed" : value.error().message;
}

TEST(BoundedJson, ReadsWhatTheLibraryReads) {
  for (const char* text : {"null", "true", "-5", "18446744073709551615", "1.5e300", R"("text \u20ac \ud83d\ude00")",
                           "[]", "{}", R"({"a":[1,{"b":[[],[2,"x"]]},null],"c":{"d":{}},"e":-0.0})", " [ 1 , 2 ] "}) {
    const Result<json> value = parse_bounded_json(text);
    ASSERT_TRUE(value) << text << ": " << value.error().message;
    EXPECT_EQ(*value, json::parse(text)) << text;
  }
}

TEST(BoundedJson, SaysWhereTextIsNotJson) {
  EXPECT_EQ(error_of(""),
            "not JSON: parse error at line 1, column 1: syntax error while parsing value - unexpected end of "
            "input; expected '[', '{', or a literal");
  EXPECT_THAT(error_of("{\"a\":\n 1,}"), StartsWith("not JSON: parse error at line 2, column 4"));
  for (const char* text : {"{", "[1", "{\"a\"}", "nul", "'a'", "[1,]", "1 2", "{\"a\":1}}", "\"\\x\"", "01", "NaN",
                           "1e999", "\"\xFF\"", "\"\xED\xA0\x80\"", "[\"\t\"]", "\xEF\xBB"}) {
    EXPECT_THAT(error_of(text), StartsWith("not JSON: ")) << text;
  }
}

TEST(BoundedJson, KeepsItsSentencesShort) {
  EXPECT_LT(error_of("\"" + std::string(100'000, 'x')).size(), 300u);
  EXPECT_LT(error_of("{\"" + std::string(100'000, 'x') + "\":1,\"" + std::string(100'000, 'x') + "\":1}").size(), 300u);
}

TEST(BoundedJson, RefusesDeepNesting) {
  JsonLimits limits;
  limits.max_depth = 3;
  EXPECT_EQ(error_of("[[[]]]", limits), "parsed");
  EXPECT_EQ(error_of("[[[[]]]]", limits), "nested deeper than 3");
  EXPECT_EQ(error_of(R"({"a":[{"b":{}}]})", limits), "nested deeper than 3");
  EXPECT_EQ(error_of(std::string(1'000'000, '[')), "nested deeper than 16");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_EQ(error_of(objects), "nested deeper than 16");
}

TEST(BoundedJson, RefusesTooManyValues) {
  JsonLimits limits;
  limits.max_values = 5;
  EXPECT_EQ(error_of("[1,2,3,4]", limits), "parsed");
  EXPECT_EQ(error_of("[1,2,3,4,5]", limits), "more than 5 values");
  EXPECT_EQ(error_of(R"({"a":1,"b":2})", limits), "parsed");
  EXPECT_EQ(error_of(R"({"a":1,"b":[]," c":2})", limits), "more than 5 values");
}

TEST(BoundedJson, RefusesTooManyBytes) {
  JsonLimits limits;
  limits.max_bytes = 4;
  EXPECT_EQ(error_of("1234", limits), "parsed");
  EXPECT_EQ(error_of("12345", limits), "5 bytes of JSON where 4 are allowed");
}

TEST(BoundedJson, RefusesAKeyThatAppearsTwice) {
  EXPECT_EQ(error_of(R"({"a":1,"b":2,"a":3})"), R"(the key "a" appears twice)");
  EXPECT_EQ(error_of(R"([{"a":1},{"a":{"a":2}}])"), "parsed");
}

TEST(BoundedJson, CutsAnExcerptBetweenCharacters) {
  EXPECT_EQ(excerpt("short"), "\"short\"");
  const std::string euros = [] {
    std::string text;
    for (int i = 0; i < 30; ++i) text += "\xE2\x82\xAC";
    return text;
  }();
  EXPECT_EQ(excerpt(euros), "\"" + euros.substr(0, 63) + "...\"");
}

TEST(BoundedJson, AgreesWithTheLibraryAboutRandomMutations) {
  const std::string good = R"({"id":"a","list":[1,2.5,-3e2,true,null],"nested":{"text":"\u20ac\n","empty":[]}})";
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (uint32_t changes = 1 + random() % 3; changes > 0; --changes) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1);
          break;
        default:
          text.insert(at, 1, "{}[]\",:0a\\ "[random() % 11]);
      }
    }
    const Result<json> value = parse_bounded_json(text);
    const json expected = json::parse(text, nullptr, false);
    if (value) {
      EXPECT_EQ(*value, expected) << text;
    } else if (!expected.is_discarded()) {
      EXPECT_THAT(value.error().message, HasSubstr("twice")) << text;
    }
  }
}

}  // namespace
}  // namespace lorikeet::comm
