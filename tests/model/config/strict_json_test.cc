#include "model/config/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/temp_dir.h"

namespace lorikeet::model {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  const auto value = parse_json(text, "x", limits);
  return value ? "" : value.error().message;
}

TEST(StrictJson, BuildsTheDocument) {
  const char* text = R"({"a": [1, -2, 3.5, true, null, "\u00e9", {}], "b": {"c": []}, "": 18446744073709551615})";
  const auto value = parse_json(text, "x");
  ASSERT_TRUE(value) << value.error().message;
  EXPECT_EQ(*value, nlohmann::json::parse(text));
}

TEST(StrictJson, KeepsTheOrderOfKeysWhereItIsAsked) {
  const auto value = parse_ordered_json(R"({"z": 1, "a": {"y": 1, "b": 2}})", "x");
  ASSERT_TRUE(value);
  EXPECT_EQ(value->dump(), R"({"z":1,"a":{"y":1,"b":2}})");
}

TEST(StrictJson, RefusesAKeyThatOccursTwiceInOneObject) {
  EXPECT_THAT(error_of(R"({"a": 1, "b": 2, "a": 3})"), HasSubstr("x: the key \"a\" occurs twice"));
  EXPECT_THAT(error_of(R"({"a": 1, "\u0061": 3})"), HasSubstr("occurs twice"));
  EXPECT_EQ(error_of(R"([{"a": 1}, {"a": 1}])"), "");
}

TEST(StrictJson, StopsAtItsLimits) {
  const JsonLimits limits{100, 3, 5};
  EXPECT_EQ(error_of("[[[1]]]", limits), "");
  EXPECT_THAT(error_of("[[[[1]]]]", limits), HasSubstr("nested deeper than 3 levels"));
  EXPECT_EQ(error_of("[1,2,3,4]", limits), "");
  EXPECT_THAT(error_of("[1,2,3,4,5]", limits), HasSubstr("more than 5 values"));
  EXPECT_THAT(error_of(std::string(101, ' '), limits), HasSubstr("101 bytes of JSON, at most 100 are read"));
  EXPECT_THAT(error_of(std::string(1'000'000, '[')), HasSubstr("nested deeper than 64 levels"));
}

TEST(StrictJson, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "{\"a\"}", "[1,]", "nul", "1e999", "{\"a\":1}x", "\"\xff\"", "'a'", "NaN"}) {
    EXPECT_THAT(error_of(text), HasSubstr("not valid JSON")) << text;
  }
}

TEST(StrictJson, ReadsObjectsFromRegularFilesOnly) {
  tests::TempDir dir;
  EXPECT_THAT(read_json_object(dir / "none").error().message, HasSubstr("no such file"));
  EXPECT_THAT(read_json_object(dir.path()).error().message, HasSubstr("no such file"));
  tests::write_file(dir / "a", "[1]");
  EXPECT_THAT(read_json_object(dir / "a").error().message, HasSubstr("the root is not a JSON object"));
  tests::write_file(dir / "a", "{\"k\": 1}");
  EXPECT_EQ((*read_json_object(dir / "a"))["k"], 1);
}

TEST(StrictJson, IsNamedWhereGitLeftAPointerInItsPlace) {
  tests::TempDir dir;
  tests::write_file(dir / "a", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  EXPECT_THAT(read_json_object(dir / "a").error().message, HasSubstr("a: Git LFS's pointer to the file"));
  EXPECT_THAT(parse_json("version", "w").error().message, HasSubstr("not valid JSON"));
}

}  // namespace
}  // namespace lorikeet::model
