#include "model/grammar/schema_check.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/base/json_nesting.h"
#include "model/grammar/pattern_check.h"
#include "model/grammar/schema_combinations.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;            // of schemas in schemas
constexpr size_t kMaxTextDepth = 256;    // of brackets: constants are compared, copied and written
constexpr int64_t kMaxRepeats = 10'000;  // of characters, items or properties: a grammar grows with them

constexpr std::string_view kUnsupported[] = {"not",
                                             "if",
                                             "then",
                                             "else",
                                             "dependentRequired",
                                             "contains",
                                             "minContains",
                                             "maxContains",
                                             "dependencies",
                                             "dependentSchemas",
                                             "$dynamicRef",
                                             "$recursiveRef",
                                             "contentSchema"};
// That grammars know, and that say nothing that could be held to.
constexpr std::string_view kFormats[] = {
    "email", "date",  "time",  "date-time",     "duration",     "hostname",     "ipv4",
    "ipv6",  "uuid",  "uri",   "uri-reference", "uri-template", "json-pointer", "relative-json-pointer",
    "int32", "int64", "float", "double",        "byte",         "binary",       "password"};
// Milliseconds of a core, as pattern_check.h counts them.
constexpr double kPatternCost = 30;
constexpr double kMultipleCost = 0.05;  // of each number below the one that a number is a multiple of
constexpr std::pair<std::string_view, double> kFormatCosts[] = {
    {"email", 40}, {"uri", 40}, {"uri-reference", 40}, {"uri-template", 170}, {"hostname", 12}};
constexpr std::string_view kOfOne[] = {
    "items", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "additionalItems"};
constexpr std::string_view kOfList[] = {"anyOf", "oneOf", "allOf", "prefixItems", "items"};
constexpr std::string_view kOfMap[] = {"properties", "patternProperties", "$defs", "definitions"};
constexpr std::string_view kRepeats[] = {"minLength", "maxLength",     "minItems",
                                         "maxItems",  "minProperties", "maxProperties"};

const json& member(const json& object, std::string_view key) {
  static const json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

bool has_type(const json& schema, std::string_view type) {
  const json& given = member(schema, "type");
  return given == type || (given.is_array() && std::find(given.begin(), given.end(), json(type)) != given.end());
}

// Of one schema, with all that is in it.
struct Walk {
  const json& root;
  double cost = 0;  // pattern_check.h
};

Result<void> check(const json& schema, Walk& walk, const std::string& where, int depth, std::string_view type = "");

std::string below(const std::string& where, std::string_view key) {
  return where.empty() ? std::string(key) : fmt::format("{}.{}", where, key);
}

std::string of(const std::string& where) {
  return where.empty() ? "" : where + ": ";
}

Result<void> check_keywords(const json& schema, Walk& walk, const std::string& where) {
  const auto unsupported = [&](std::string_view keyword) {
    return fail("{}the keyword \"{}\" is not supported", of(where), keyword);
  };
  for (const std::string_view keyword : kUnsupported) {
    if (schema.contains(keyword)) return unsupported(keyword);
  }
  if (member(schema, "uniqueItems") == true) return unsupported("uniqueItems");
  if (schema.contains("multipleOf") && !(has_type(schema, "integer") && schema["multipleOf"].is_number_integer())) {
    return fail("{}the keyword \"multipleOf\" is supported of integers alone", of(where));
  }
  if (schema.contains("multipleOf")) {
    walk.cost += kMultipleCost * std::clamp(schema["multipleOf"].get<double>(), 0.0, 10'000.0);
  }
  const json& format = member(schema, "format");
  if (format.is_string() &&
      std::find(std::begin(kFormats), std::end(kFormats), format.get_ref<const std::string&>()) == std::end(kFormats)) {
    return fail("{}the format \"{}\" is not supported", of(where), format.get_ref<const std::string&>().substr(0, 64));
  }
  for (const auto& [name, cost] : kFormatCosts) walk.cost += format == name ? cost : 0;
  if ((schema.contains("minLength") || schema.contains("maxLength")) &&
      (schema.contains("pattern") || schema.contains("format"))) {
    return fail("{}\"minLength\" and \"maxLength\" are not supported beside \"pattern\" or \"format\"", of(where));
  }
  if (member(schema, "allOf").is_array() && schema["allOf"].size() > 1) {
    return fail("{}the keyword \"allOf\" is not supported with more than one schema", of(where));
  }
  if (const json& pattern = member(schema, "pattern"); pattern.is_string()) {
    const auto cost = pattern_cost(pattern.get_ref<const std::string&>(), GrammarKind::regex);
    if (!cost) return fail("{}\"pattern\": {}", of(where), cost.error().message);
    walk.cost += kPatternCost + *cost;
  }
  for (const std::string_view keyword : kRepeats) {
    const json& count = member(schema, keyword);
    if (count.is_number() && count > kMaxRepeats) {
      return fail("{}\"{}\" is above {}", of(where), keyword, kMaxRepeats);
    }
  }
  return {};
}

Result<void> check(const json& schema, Walk& walk, const std::string& where, int depth, std::string_view type) {
  if (depth > kMaxDepth) return fail("the schema is nested deeper than {} levels", kMaxDepth);
  if (!schema.is_object()) return {};  // true, false, or what compiling refuses
  if (auto ok = check_keywords(schema, walk, where); !ok) return ok;
  if (auto ok = check_combinations(schema, walk.root, type, walk.cost); !ok) {
    return fail("{}{}", of(where), ok.error().message);
  }
  for (const std::string_view keyword : kOfOne) {
    const std::string_view of_names = keyword == "propertyNames" ? "string" : "";
    if (auto ok = check(member(schema, keyword), walk, below(where, keyword), depth + 1, of_names); !ok) return ok;
  }
  for (const std::string_view keyword : kOfList) {
    const json& list = member(schema, keyword);
    for (size_t i = 0; list.is_array() && i < list.size(); ++i) {
      if (auto ok = check(list[i], walk, fmt::format("{}[{}]", below(where, keyword), i), depth + 1); !ok) return ok;
    }
  }
  for (const std::string_view keyword : kOfMap) {
    const json& map = member(schema, keyword);
    if (!map.is_object()) continue;
    for (const auto& [name, inner] : map.items()) {
      if (keyword == "patternProperties") {
        const auto cost = pattern_cost(name, GrammarKind::regex);
        if (!cost) return fail("{}: {}", below(where, keyword), cost.error().message);
        walk.cost += kPatternCost + *cost;
      }
      if (auto ok = check(inner, walk, below(below(where, keyword), name.substr(0, 64)), depth + 1); !ok) return ok;
    }
  }
  return {};
}

Result<void> check_whole(const json& schema, double& cost) {
  Walk walk{schema, cost};
  auto ok = check(schema, walk, "", 0);
  cost = walk.cost;
  if (ok && cost > kMaxCompileCost) {
    return fail("the schema has too many patterns and formats: it would take too long to compile");
  }
  return ok;
}

Result<void> check_tags(const json& value, int depth, double& cost) {
  if (depth > kMaxDepth) return fail("the tag is nested deeper than {} levels", kMaxDepth);
  if (!value.is_structured()) return {};
  for (const auto& [key, inner] : value.items()) {
    const bool schema = key == "json_schema" || key == "schema";
    if (auto ok = schema ? check_whole(inner, cost) : check_tags(inner, depth + 1, cost); !ok) return ok;
    if (!inner.is_string() || (key != "pattern" && key != "grammar")) continue;
    const bool is_lark = value.is_object() && member(value, "syntax") == json("lark");
    const GrammarKind kind = key == "pattern" ? GrammarKind::regex : is_lark ? GrammarKind::lark : GrammarKind::ebnf;
    const auto own = pattern_cost(inner.get_ref<const std::string&>(), kind);
    if (!own) return fail("{}: {}", key, own.error().message);
    cost += *own;
  }
  return {};
}

}  // namespace

Result<double> schema_cost(std::string_view text) {
  if (nests_deeper(text, kMaxTextDepth)) return fail("the schema is nested deeper than {} brackets", kMaxTextDepth);
  const json schema = json::parse(text, nullptr, false);
  if (schema.is_discarded()) return fail("it is not JSON");
  if (!schema.is_object() && !schema.is_boolean()) return fail("a schema is an object");
  double cost = 0;
  if (auto ok = check_whole(schema, cost); !ok) return tl::unexpected(ok.error());
  return cost;
}

Result<void> check_schema(std::string_view text) {
  const auto cost = schema_cost(text);
  return cost ? Result<void>() : tl::unexpected(cost.error());
}

Result<void> check_tag(std::string_view text) {
  if (nests_deeper(text, kMaxTextDepth)) return fail("the tag is nested deeper than {} brackets", kMaxTextDepth);
  const json tag = json::parse(text, nullptr, false);
  if (!tag.is_object()) return fail("a structural tag is an object");
  double cost = 0;
  if (auto ok = check_tags(tag, 0, cost); !ok) return ok;
  if (cost > kMaxCompileCost) return fail("the tag has too many patterns: it would take too long to compile");
  return {};
}

}  // namespace lorikeet::model
