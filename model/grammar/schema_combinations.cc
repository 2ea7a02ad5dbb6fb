#include "model/grammar/schema_combinations.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "model/grammar/pattern_check.h"

namespace lorikeet::model {
namespace {

using nlohmann::json;

constexpr size_t kMostOfOneOf = 64;    // all pairs of them are looked at
constexpr double kLookCost = 0.005;    // milliseconds of a core, of comparing two schemas
constexpr double kValueCost = 0.0002;  // of comparing two values or names
constexpr int kMaxComparedDepth = 8;   // of references and of properties that tell schemas of oneOf apart

// In the order in which they are read: the first one stands for the whole schema.
constexpr const char* kAlone[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};

struct OfType {
  const char* keyword;
  const char* type;
  bool implies;  // the type, where the schema says none
};
constexpr OfType kOfType[] = {
    {"minimum", "number", false},
    {"maximum", "number", false},
    {"exclusiveMinimum", "number", false},
    {"exclusiveMaximum", "number", false},
    {"multipleOf", "number", false},
    {"minLength", "string", false},
    {"maxLength", "string", false},
    {"pattern", "string", false},
    {"items", "array", true},
    {"prefixItems", "array", true},
    {"unevaluatedItems", "array", true},
    {"minItems", "array", false},
    {"maxItems", "array", false},
    {"properties", "object", true},
    {"additionalProperties", "object", true},
    {"unevaluatedProperties", "object", true},
    {"required", "object", false},
    {"minProperties", "object", false},
    {"maxProperties", "object", false},
    {"patternProperties", "object", false},
    {"propertyNames", "object", false},
};

const json& member_of(const json& object, const std::string& key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

// The types of a schema without what stands alone; "integer" is a "number".
std::set<std::string> types_of(const json& schema) {
  std::set<std::string> types;
  const auto add = [&](const json& name) {
    if (name.is_string()) types.insert(name == "integer" ? "number" : name.get<std::string>());
  };
  const json& given = member_of(schema, "type");
  if (given.is_string()) add(given);
  if (given.is_array()) std::for_each(given.begin(), given.end(), add);
  for (const OfType& one : kOfType) {
    if (types.empty() && one.implies && schema.contains(one.keyword)) types.insert(one.type);
  }
  return types;
}

bool is_of_type(const json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  return value.type_name() == type;  // of JSON as of JSON Schema: null, boolean, string, array, object
}

bool is_of(const json& value, const json& type) {
  if (type.is_string()) return is_of_type(value, type.get<std::string>());
  return type.is_array() && std::any_of(type.begin(), type.end(), [&](const json& one) { return is_of(value, one); });
}

// Whether what stands alone says of itself what `type` beside it says.
bool says_type(const json& schema, const std::string& alone) {
  const json& type = schema["type"];
  const json& what = schema[alone];
  const auto every = [&](const auto& holds) { return what.is_array() && std::all_of(what.begin(), what.end(), holds); };
  if (alone == "const") return is_of(what, type);
  if (alone == "enum") return every([&](const json& value) { return is_of(value, type); });
  return every([&](const json& inner) { return member_of(inner, "type") == type; });
}

Result<void> check_alone(const json& schema, const std::string& alone) {
  for (const char* other : kAlone) {
    if (other != alone && schema.contains(other)) return fail("\"{}\" is not supported beside \"{}\"", other, alone);
  }
  for (const OfType& one : kOfType) {
    if (schema.contains(one.keyword)) return fail("\"{}\" is not supported beside \"{}\"", one.keyword, alone);
  }
  if (schema.contains("type") && !says_type(schema, alone)) {
    return fail("\"type\" is not supported beside \"{}\", unless that says the same", alone);
  }
  return {};
}

// ---- references

Result<void> check_reference(const json& reference) {
  if (!reference.is_string()) return fail("\"$ref\" is no string");
  const auto& text = reference.get_ref<const std::string&>();
  if (text == "#" || text.starts_with("#/")) return {};
  return fail("the reference \"{}\" is not supported: it does not begin with #/", text.substr(0, 64));
}

// What a schema refers to; itself where that is not to be found.
const json& resolved(const json& schema, const json& root, int depth = 0) {
  const json& reference = member_of(schema, "$ref");
  if (depth > kMaxComparedDepth || !reference.is_string() ||
      !reference.get_ref<const std::string&>().starts_with("#/")) {
    return schema;
  }
  try {
    return resolved(root.at(json::json_pointer(reference.get_ref<const std::string&>().substr(1))), root, depth + 1);
  } catch (const json::exception&) {  // no pointer, or one to nothing: compiling says so
    return schema;
  }
}

// ---- oneOf

// The values that are all a schema allows; null: it is not made of values.
json values_of(const json& schema) {
  if (member_of(schema, "enum").is_array()) return schema["enum"];
  return schema.is_object() && schema.contains("const") ? json::array({schema["const"]}) : json();
}

std::set<std::string> types_of_any(const json& schema) {
  const json values = values_of(schema);
  if (values.is_null()) return schema.is_object() ? types_of(schema) : std::set<std::string>();
  std::set<std::string> types;
  for (const json& value : values) types.insert(value.type_name());
  return types;
}

bool requires_property(const json& schema, const std::string& name) {
  const json& names = member_of(schema, "required");
  return names.is_array() && std::find(names.begin(), names.end(), json(name)) != names.end();
}

// Whether it can be seen that nothing is valid under both.
bool exclude_each_other(const json& left, const json& right, const json& root, double& cost, int depth = 0) {
  const json& a = resolved(left, root);
  const json& b = resolved(right, root);
  if (depth > kMaxComparedDepth || !a.is_object() || !b.is_object()) return false;
  const auto values_a = static_cast<double>(member_of(a, "enum").size());
  const auto values_b = static_cast<double>(member_of(b, "enum").size());
  cost += kLookCost + kValueCost * (values_a + values_b + values_a * values_b);
  if (cost > kMaxCompileCost) return false;
  const auto types = types_of_any(a), others = types_of_any(b);
  if (types.empty() || others.empty()) return false;
  if (std::none_of(types.begin(), types.end(), [&](const std::string& type) { return others.contains(type); })) {
    return true;
  }
  const json values = values_of(a), other_values = values_of(b);
  if (!values.is_null() && !other_values.is_null()) {
    return std::none_of(values.begin(), values.end(), [&](const json& value) {
      return std::find(other_values.begin(), other_values.end(), value) != other_values.end();
    });
  }
  const json& properties = member_of(a, "properties");
  if (types != others || types != std::set<std::string>{"object"} || !properties.is_object()) return false;
  for (const auto& [name, property] : properties.items()) {
    cost += kValueCost * static_cast<double>(member_of(a, "required").size() + member_of(b, "required").size());
    if (cost > kMaxCompileCost) return false;
    const json& other = member_of(member_of(b, "properties"), name);
    if (requires_property(a, name) && requires_property(b, name) &&
        exclude_each_other(property, other, root, cost, depth + 1)) {
      return true;
    }
  }
  return false;
}

Result<void> check_one_of(const json& schemas, const json& root, double& cost) {
  if (!schemas.is_array()) return {};
  if (schemas.size() > kMostOfOneOf) return fail("\"oneOf\" has more than {} schemas", kMostOfOneOf);
  for (size_t i = 0; i < schemas.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (exclude_each_other(schemas[j], schemas[i], root, cost)) continue;
      return fail(
          "\"oneOf\" is supported where its schemas exclude each other by their types, or by a constant of a property "
          "that "
          "both require; use \"anyOf\"");
    }
  }
  return {};
}

// ---- objects

Result<void> check_object(const json& schema) {
  const json& properties = member_of(schema, "properties");
  const json& required = member_of(schema, "required");
  for (size_t i = 0; required.is_array() && i < required.size(); ++i) {
    if (!required[i].is_string()) return fail("\"required\" has what is no string");
    const auto& name = required[i].get_ref<const std::string&>();
    if (!properties.is_object() || !properties.contains(name)) {
      return fail("\"required\" names \"{}\", which is not among \"properties\"", name.substr(0, 64));
    }
  }
  // Names that grammars take for others of the object are not compared with the patterns.
  const json& patterns = member_of(schema, "patternProperties");
  if (patterns.is_null()) return {};
  if (patterns.size() > 1) return fail("\"patternProperties\" is supported with one pattern alone");
  if (properties.is_object() && !properties.empty()) {
    return fail("\"patternProperties\" is not supported beside \"properties\"");
  }
  if (schema.contains("additionalProperties") && schema["additionalProperties"] != false) {
    return fail("\"patternProperties\" is supported beside \"additionalProperties\": false alone");
  }
  return {};
}

}  // namespace

Result<void> check_combinations(const json& schema, const json& root, std::string_view type, double& cost) {
  if (&schema != &root && schema.contains("$id")) return fail("\"$id\" is supported of the whole schema alone");
  for (const char* alone : kAlone) {
    if (!schema.contains(alone)) continue;
    if (auto ok = check_alone(schema, alone); !ok) return ok;
    if (std::string_view(alone) == "$ref") return check_reference(schema["$ref"]);
    return std::string_view(alone) == "oneOf" ? check_one_of(schema["oneOf"], root, cost) : Result<void>();
  }
  std::set<std::string> types = types_of(schema);
  if (types.empty() && !type.empty()) types.emplace(type);
  for (const OfType& one : kOfType) {
    if (!schema.contains("type") && schema.contains(one.keyword) && !types.contains(one.type)) {
      return fail("the keyword \"{}\" is supported beside \"type\" alone", one.keyword);
    }
  }
  return types.contains("object") ? check_object(schema) : Result<void>();
}

}  // namespace lorikeet::model
