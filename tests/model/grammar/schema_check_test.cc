#include "model/grammar/schema_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/grammar/grammar_spec.h"

namespace lorikeet::model {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::string& schema) {
  const auto checked = check_grammar({GrammarKind::json_schema, schema});
  return checked ? "none" : checked.error().message;
}

TEST(SchemaCheck, NamesWhatAGrammarWouldPassOver) {
  EXPECT_EQ(error_of(R"({"type": "object", "properties": {"a": {"not": {"type": "string"}}}})"),
            "properties.a: the keyword \"not\" is not supported");
  EXPECT_EQ(error_of(R"({"if": {}, "then": {}})"), "the keyword \"if\" is not supported");
  EXPECT_EQ(error_of(R"({"anyOf": [{}, {"items": {"uniqueItems": true}}]})"),
            "anyOf[1].items: the keyword \"uniqueItems\" is not supported");
  EXPECT_EQ(error_of(R"({"$defs": {"x": {"contains": {}}}})"), "$defs.x: the keyword \"contains\" is not supported");
  EXPECT_THAT(error_of(R"({"type": "number", "multipleOf": 0.5})"),
              HasSubstr("\"multipleOf\" is supported of integers"));
  EXPECT_THAT(error_of(R"({"allOf": [{}, {}]})"), HasSubstr("more than one schema"));
  EXPECT_THAT(error_of(R"({"type": "string", "format": "credit-card"})"), HasSubstr("the format \"credit-card\""));
  EXPECT_THAT(error_of(R"({"type": "string", "pattern": "a", "maxLength": 3})"), HasSubstr("beside \"pattern\""));
  EXPECT_THAT(error_of(R"({"type": "string", "maxLength": 1000000})"), HasSubstr("\"maxLength\" is above 10000"));
}

TEST(SchemaCheck, LetsPassWhatGrammarsHoldTo) {
  for (
      const char* schema :
      {"{}", "true", R"({"type": "object", "properties": {"not": {"type": "string"}, "if": {"type": "integer"}}})",
       R"({"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1, "maxItems": 9, "$defs": {"a": {"enum": [1]}}})",
       R"({"type": "string", "format": "date-time"})", R"({"type": "integer", "minimum": 1, "multipleOf": 5})",
       R"({"uniqueItems": false, "title": "x", "description": "if", "default": {"not": 1}, "allOf": [{"type": "string"}]})"}) {
    EXPECT_EQ(error_of(schema), "none") << schema;
  }
}

TEST(SchemaCheck, RefusesWhatIsNoSchemaOrTooLarge) {
  EXPECT_EQ(error_of(""), "it is empty");
  EXPECT_EQ(error_of("{"), "it is not JSON");
  EXPECT_EQ(error_of("[]"), "a schema is an object");
  EXPECT_THAT(error_of(std::string(70'000, ' ')), HasSubstr("70000 bytes, more than 65536"));
  std::string deep = "{}";
  for (int i = 0; i < 100; ++i) deep = R"({"items": )" + deep + "}";
  EXPECT_THAT(error_of(deep), HasSubstr("nested deeper than 64"));
}

TEST(SchemaCheck, LooksIntoTheSchemasOfStructuralTags) {
  const auto error = [](const std::string& tag) {
    const auto checked = check_grammar({GrammarKind::structural_tag, tag});
    return checked ? "none" : checked.error().message;
  };
  EXPECT_EQ(error(R"({"type": "structural_tag", "format": {"type": "tag", "begin": "a", "end": "b",
                     "content": {"type": "json_schema", "json_schema": {"not": {}}}}})"),
            "the keyword \"not\" is not supported");
  EXPECT_EQ(error(R"({"format": {"not": {"json_schema": {"type": "string"}}}})"), "none");
  EXPECT_EQ(error("5"), "a structural tag is an object");
}

TEST(ChoiceGrammar, QuotesWhatTextsHold) {
  EXPECT_EQ(choice_grammar({"a", "b \"c\"\\\n", "é\x01"}).text, R"(root ::= "a" | "b \"c\"\\\n" | "é\x01")");
}

}  // namespace
}  // namespace lorikeet::model
