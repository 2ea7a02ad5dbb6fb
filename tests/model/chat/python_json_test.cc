#include "model/chat/python_json.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace lorikeet::model {
namespace {

// Expected: json.dumps(json.loads(text), ensure_ascii=False) of CPython 3.11.
TEST(PythonJson, SpellsValuesAsPythonDoes) {
  const std::pair<std::string, std::string> cases[] = {
      {R"({"b":1,"a":[true,false,null],"c":{}})", R"({"b": 1, "a": [true, false, null], "c": {}})"},
      {R"([])", R"([])"},
      {R"([1.0,1e5,1E16,123456789012345680.0])", R"([1.0, 100000.0, 1e+16, 1.2345678901234568e+17])"},
      {R"([0.0001,0.00001,-1e-7,2.50,-0.0,5e-324])", R"([0.0001, 1e-05, -1e-07, 2.5, -0.0, 5e-324])"},
      {R"([9007199254740993.0,0.1,1e22,1.7976931348623157e308])",
       R"([9007199254740992.0, 0.1, 1e+22, 1.7976931348623157e+308])"},
      {R"([18446744073709551616,-9223372036854775809,-0,12345678901234567890123])",
       R"([18446744073709551616, -9223372036854775809, 0, 12345678901234567890123])"},
      {R"("\u00e9\u4eac\ud83d\ude00 <>&'/\/")", R"("é京😀 <>&'//")"},
      {R"("\"\\\b\f\n\r\t\u0000\u001f\u007f")", "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\""},
      {R"( 3 )", "3"},
  };
  for (const auto& [text, expected] : cases) {
    auto spelt = to_python_json(text);
    ASSERT_TRUE(spelt) << text << ": " << spelt.error().message;
    EXPECT_EQ(*spelt, expected);
  }
}

TEST(PythonJson, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "{a:1}", "[1,]", "NaN", "'a'", "1 2", "\"\\ud800\"", "\"\xff\"", "1e999"}) {
    EXPECT_FALSE(to_python_json(text)) << text;
  }
  EXPECT_EQ(to_python_json(R"({"a": {"k": 1, "k": 2}})").error().message, "the key \"k\" occurs twice");
  EXPECT_TRUE(to_python_json(std::string(64, '[') + std::string(64, ']')));
  EXPECT_FALSE(to_python_json(std::string(65, '[') + std::string(65, ']')));
}

}  // namespace
}  // namespace lorikeet::model
