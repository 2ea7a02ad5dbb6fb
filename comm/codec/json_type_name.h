// What a JSON value is, for a sentence.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace lorikeet::comm {

// "a string", "null".
inline std::string_view json_type_name(const nlohmann::json& value) {
  using Type = nlohmann::json::value_t;
  switch (value.type()) {
    case Type::null:
      return "null";
    case Type::object:
      return "an object";
    case Type::array:
      return "a list";
    case Type::string:
      return "a string";
    case Type::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

}  // namespace lorikeet::comm
