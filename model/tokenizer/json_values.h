// Reading single values of a tokenizer's JSON files.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace lorikeet::model {

// A value of the file inside a message: short, and printable whatever it is.
inline std::string brief(const nlohmann::json& value) {
  if (value.is_structured()) return value.is_object() ? "an object" : "an array";
  const std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

// The member of that name; null where there is none, or where `object` is none.
inline const nlohmann::json& member(const nlohmann::json& object, const char* key) {
  static const nlohmann::json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

inline bool is_false(const nlohmann::json& value) {
  return value.is_boolean() && !value.get<bool>();
}
inline bool is_off(const nlohmann::json& value) {
  return value.is_null() || is_false(value);
}

}  // namespace lorikeet::model
