#include "model/config/json_fields.h"

#include "kernels/base/printable.h"

namespace lorikeet::model {

using nlohmann::json;

namespace {

// Also one that a tool wrote as 128.0.
std::optional<int64_t> whole_number(const json& value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53: doubles below it that are whole are what was written
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (!(std::abs(number) < kExact) || number != std::trunc(number)) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (!value.is_number_integer() || too_large) return std::nullopt;
  return value.get<int64_t>();
}

}  // namespace

bool is_unset(const json& value) {
  return value.is_null() || value == json(false) || ((value.is_object() || value.is_array()) && value.empty()) ||
         value == json("");
}

std::string brief(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

const json* JsonFields::find(std::string_view key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

tl::unexpected<Error> JsonFields::wrong(std::string_view key, std::string_view why) const {
  const json* value = find(key);
  if (value == nullptr) return fail("{}: {} {}", where_, printable(key), why);
  return fail("{}: {} = {}: {}", where_, printable(key), brief(*value), why);
}

bool JsonFields::is_null(std::string_view key) const {
  const auto it = object_.find(key);
  return it != object_.end() && it->is_null();
}

Result<int64_t> JsonFields::integer(std::string_view key, int64_t minimum, int64_t maximum) const {
  const json* value = find(key);
  if (value == nullptr) return wrong(key, "is missing");
  const std::optional<int64_t> number = whole_number(*value);
  if (!number || *number < minimum || *number > maximum) {
    return wrong(key, fmt::format("must be a whole number from {} to {}", minimum, maximum));
  }
  return *number;
}

Result<int64_t> JsonFields::integer_or(std::string_view key, int64_t fallback, int64_t minimum, int64_t maximum) const {
  return has(key) ? integer(key, minimum, maximum) : Result<int64_t>(fallback);
}

Result<double> JsonFields::number(std::string_view key, double minimum, double maximum) const {
  const json* value = find(key);
  if (value == nullptr) return wrong(key, "is missing");
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= minimum && number <= maximum)) {
    return wrong(key, fmt::format("must be a number from {} to {}", minimum, maximum));
  }
  return number;
}

Result<double> JsonFields::number_or(std::string_view key, double fallback, double minimum, double maximum) const {
  return has(key) ? number(key, minimum, maximum) : Result<double>(fallback);
}

Result<bool> JsonFields::boolean_or(std::string_view key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return wrong(key, "must be true or false");
  return value->get<bool>();
}

Result<std::string> JsonFields::string_or(std::string_view key, std::string fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) return wrong(key, "must be a string");
  return value->get<std::string>();
}

}  // namespace lorikeet::model
