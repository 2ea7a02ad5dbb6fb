// Typed, checked access to the keys of a JSON object; every error names the file, the key and the value.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/base/error.h"

namespace lorikeet::model {

class JsonFields {
 public:
  // The object must outlive this. `where` names it in errors, such as "config.json" or "config.json: rope_scaling".
  JsonFields(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const std::string& where() const { return where_; }

  // The value of a key; null and absent are the same.
  const nlohmann::json* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  bool is_null(std::string_view key) const;  // written as null

  // Whole numbers, 128.0 among them.
  Result<int64_t> integer(std::string_view key, int64_t minimum, int64_t maximum) const;
  Result<int64_t> integer_or(std::string_view key, int64_t fallback, int64_t minimum, int64_t maximum) const;
  Result<double> number(std::string_view key, double minimum, double maximum) const;
  Result<double> number_or(std::string_view key, double fallback, double minimum, double maximum) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<std::string> string_or(std::string_view key, std::string fallback) const;

  // A sentence about this object's key.
  tl::unexpected<Error> wrong(std::string_view key, std::string_view why) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
};

// Whether a setting is not made: null, false, "", {} or [].
bool is_unset(const nlohmann::json& value);

// A JSON value for a message, cut short.
std::string brief(const nlohmann::json& value);

}  // namespace lorikeet::model
