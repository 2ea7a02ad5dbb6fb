#include "model/grammar/schema_check.h"

#include <fmt/format.h>
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
  const std::string value = std::string(30'000, '[') + std::string(30'000, ']');
  EXPECT_EQ(error_of(R"({"const": )" + value + "}"), "the schema is nested deeper than 256 brackets");
}

TEST(SchemaCheck, RefusesWhatTakesTooLongToCompile) {
  const auto properties = [](int count, const std::string& schema) {
    std::string list;
    for (int i = 0; i < count; ++i) list += (i == 0 ? "" : ", ") + fmt::format("\"p{}\": {}", i, schema);
    return R"({"type": "object", "properties": {)" + list + "}}";
  };
  const char* const pattern = R"({"type": "string", "pattern": "^[a-z]{1,20}$"})";
  EXPECT_EQ(error_of(properties(20, pattern)), "none");
  EXPECT_THAT(error_of(properties(100, pattern)), HasSubstr("too many patterns and formats"));
  EXPECT_THAT(error_of(properties(100, R"({"type": "string", "format": "uri-template"})")), HasSubstr("too long"));
  EXPECT_THAT(error_of(properties(100, R"({"type": "integer", "multipleOf": 997})")), HasSubstr("too long"));
  EXPECT_EQ(error_of(properties(1000, R"({"type": "integer", "minimum": 1})")), "none");
}

TEST(SchemaCheck, ComparesSchemasOfOneOfWithinABound) {
  std::string names, all;
  for (int i = 0; i < 20; ++i) {
    names += (i == 0 ? "\"" : ", \"") + fmt::format("p{}\"", i);
    all += (i == 0 ? "" : ", ") + fmt::format(R"("p{}": {{"$ref": "#/$defs/x"}})", i);
  }
  const std::string x = R"({"type": "object", "required": [)" + names + R"(], "properties": {)" + all + "}}";
  EXPECT_NE(error_of(R"({"oneOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}], "$defs": {"x": )" + x + "}}"),
            "none");
}

// The cases of JSON Schema's own suite in which XGrammar takes what is invalid (tests/schema_suite.py).
TEST(SchemaCheck, NamesKeywordsThatStandWhereAGrammarPassesOverThem) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"minimum": 2})", "\"minimum\" is supported beside \"type\" alone"},
      {R"({"required": ["a"]})", "\"required\" is supported beside"},
      {R"({"properties": {"a": {}}, "minItems": 1})", "\"minItems\" is supported beside"},
      {R"({"type": "string", "anyOf": [{"maxLength": 2}]})", "\"type\" is not supported beside \"anyOf\""},
      {R"({"anyOf": [{"type": "object"}], "required": ["a"]})", "\"required\" is not supported beside \"anyOf\""},
      {R"({"$ref": "#/$defs/a", "maxLength": 3, "$defs": {"a": {}}})",
       "\"maxLength\" is not supported beside \"$ref\""},
      {R"({"const": 1, "enum": [2]})", "\"enum\" is not supported beside \"const\""},
      {R"({"type": "string", "enum": ["a", 1]})", "\"type\" is not supported beside \"enum\""},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "exclude each other"},
      {R"({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]})", "exclude each other"},
      {R"({"$ref": "http://example.com/a"})", "the reference \"http://example.com/a\" is not supported"},
      {R"({"type": "array", "items": {"$id": "b", "type": "string"}})", "items: \"$id\" is supported of the whole"},
      {R"({"type": "object", "required": ["a"], "properties": {"b": {}}})", "names \"a\", which is not among"},
      {R"({"type": "object", "patternProperties": {"a": {}, "b": {}}})", "one pattern alone"},
      {R"({"type": "object", "patternProperties": {"a": {}}, "properties": {"a": {}}})", "beside \"properties\""},
      {R"({"type": "object", "patternProperties": {"a": {}}, "additionalProperties": true})", "false alone"},
      {R"({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"pattern": "x"}}}}})",
       "properties.a.properties.b: the keyword \"pattern\""}};
  for (const auto& [schema, error] : cases) EXPECT_THAT(error_of(schema), HasSubstr(error)) << schema;
}

TEST(SchemaCheck, LetsStandTogetherWhatSaysTheSame) {
  for (
      const char* schema :
      {R"({"type": "string", "enum": ["a", "b"], "description": "x", "default": "a", "title": "y"})",
       R"({"type": ["string", "null"], "enum": ["a", null]})", R"({"type": "integer", "const": 5})",
       R"({"type": "object", "anyOf": [{"type": "object", "properties": {"a": {}}}]})",
       R"({"allOf": [{"$ref": "#/$defs/a"}], "default": 1, "$defs": {"a": {"type": "integer"}}})",
       R"({"type": ["string", "null"], "maxLength": 5, "minimum": 3})",
       R"({"type": "object", "propertyNames": {"maxLength": 5}, "additionalProperties": {"type": "string"}})",
       R"({"oneOf": [{"type": "string"}, {"type": "null"}, {"properties": {"a": {}}}]})",
       R"({"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": {"propertyName": "kind"}, "$defs": {
            "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
            "dog": {"type": "object", "properties": {"kind": {"type": "string", "enum": ["dog"]}}, "required": ["kind"]}}})",
       R"({"$id": "x", "$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"$ref": "#"}}}}})"}) {
    EXPECT_EQ(error_of(schema), "none") << schema;
  }
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
  const std::string element = R"({"type": "regex", "pattern": ")" + std::string(126, '.') + R"("})";
  const auto sequence = [&](int count) {
    std::string list = element;
    for (int i = 1; i < count; ++i) list += ", " + element;
    return R"({"type": "structural_tag", "format": {"type": "sequence", "elements": [)" + list + "]}}";
  };
  EXPECT_EQ(error(sequence(1)), "none");
  EXPECT_THAT(error(sequence(20)), HasSubstr("too many patterns"));
}

TEST(ChoiceGrammar, QuotesWhatTextsHold) {
  EXPECT_EQ(choice_grammar({"a", "b \"c\"\\\n", "é\x01"}).text, R"(root ::= "a" | "b \"c\"\\\n" | "é\x01")");
}

}  // namespace
}  // namespace lorikeet::model
