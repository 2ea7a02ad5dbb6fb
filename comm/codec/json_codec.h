// Any struct with one static fields(self, visit) as JSON and back (what may be a member: comm/codec/codec.h).
//
//   struct    an object, keys named as the fields
//   pair      a list of two
//   variant   its alternative: a string or an integer
//   optional  the value or null
//   enum      its number
//   float     a number; null where it is not finite
//   others    as their plain form, or as their own: json_form() and read_json_form()
//
// When read: numbers, strings and structs must be there; booleans, lists and optionals may be absent or null and then
// keep their defaults. A list of strings may be one string, a list of pairs that begin with an integer an object with
// these as keys. An unknown key is an error. Integers must be in the range of their type; 1000.0 is one. Where another
// version may have written the text (JsonKeys::any), unknown keys are passed over and whatever is missing keeps its
// default.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "comm/codec/bounded_json.h"
#include "comm/codec/codec.h"
#include "comm/codec/json_type_name.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Which keys an object may have.
enum class JsonKeys : uint8_t { exact, any };

namespace json_detail {

using codec_detail::BoundedEnum;
using codec_detail::HasFields;
using codec_detail::HasPlain;
using codec_detail::IsOptional;
using codec_detail::IsPair;
using codec_detail::IsVariant;
using codec_detail::IsVector;
using codec_detail::kUnsupported;
using nlohmann::json;

// A type with a form of its own in JSON (comm/client/chat_message.h).
template <class T>
concept HasJsonForm = requires(const T& value, T& target, const json& form) {
  value.json_form();
  target.read_json_form(form);
};

template <class T>
struct IsKeyed : std::false_type {};
template <class Key, class T>
struct IsKeyed<std::pair<Key, T>> : std::bool_constant<std::is_integral_v<Key>> {};

template <class T>
json write(const T& value) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::isfinite(value) ? json(static_cast<double>(value)) : json(nullptr);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    return json(value);
  } else if constexpr (std::is_enum_v<T>) {
    return json(static_cast<std::underlying_type_t<T>>(value));
  } else if constexpr (IsVector<T>::value) {
    json list = json::array();
    for (const auto& element : value) list.push_back(write(element));
    return list;
  } else if constexpr (IsOptional<T>::value) {
    return value ? write(*value) : json(nullptr);
  } else if constexpr (IsPair<T>::value) {
    json list = json::array();
    list.push_back(write(value.first));
    list.push_back(write(value.second));
    return list;
  } else if constexpr (HasJsonForm<T>) {
    return value.json_form();
  } else if constexpr (IsVariant<T>::value) {
    return std::visit([](const auto& alternative) { return write(alternative); }, value);
  } else if constexpr (HasFields<T>) {
    json object = json::object();
    T::fields(value, [&object](const char* name, const auto& field) { object[name] = write(field); });
    return object;
  } else if constexpr (HasPlain<T>) {
    return write(value.plain());
  } else {
    static_assert(kUnsupported<T>, "no JSON for this type");
  }
}

// Where a value stands, for the sentence of an error: messages[2].content.
struct Path {
  const Path* parent = nullptr;
  const char* field = nullptr;
  size_t index = 0;  // where there is no field
  JsonKeys keys = JsonKeys::exact;

  Path of(const char* name) const { return {this, name, 0, keys}; }
  Path of(size_t element) const { return {this, nullptr, element, keys}; }

  std::string text() const {
    std::string before = parent == nullptr ? "" : parent->text();
    if (field == nullptr) return parent == nullptr ? before : fmt::format("{}[{}]", before, index);
    return before.empty() ? field : fmt::format("{}.{}", before, field);
  }
};

struct Refused {
  std::string message;
};

[[noreturn]] inline void refuse(const Path& path, std::string_view what) {
  const std::string where = path.text();
  throw Refused{fmt::format("{} {}", where.empty() ? "the message" : where, what)};
}

[[noreturn]] inline void refuse_type(const Path& path, std::string_view expected, const json& value) {
  refuse(path, fmt::format("must be {}, not {}", expected, json_type_name(value)));
}

template <class T>
T read_integer(const Path& path, const json& value) {
  if (!value.is_number()) refuse_type(path, "an integer", value);
  if (value.is_number_float()) {
    constexpr double kExact = 9007199254740992.0;  // 2^53: doubles below it that are whole are what was written
    const auto number = value.get<double>();
    if (!(std::abs(number) < kExact) || number != std::trunc(number)) {
      refuse(path, fmt::format("must be an integer, not {}", value.dump()));
    }
    return read_integer<T>(path, json(static_cast<int64_t>(number)));
  }
  const bool fits =
      value.is_number_unsigned() ? std::in_range<T>(value.get<uint64_t>()) : std::in_range<T>(value.get<int64_t>());
  if (!fits) {
    refuse(path, fmt::format("must be within {} .. {}, not {}", std::numeric_limits<T>::min(),
                             std::numeric_limits<T>::max(), value.dump()));
  }
  return value.is_number_unsigned() ? static_cast<T>(value.get<uint64_t>()) : static_cast<T>(value.get<int64_t>());
}

template <class T>
void read(const Path& path, const json& value, T& target);

// {"15": -100}: a list of pairs by their first members.
template <class T>
void read_keyed(const Path& path, const json& value, std::vector<T>& target) {
  for (const auto& item : value.items()) {
    auto& [key, mapped] = target.emplace_back();
    const char* end = item.key().data() + item.key().size();
    const auto parsed = std::from_chars(item.key().data(), end, key);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      refuse(path, fmt::format("has the key {}, which is no integer in range", excerpt(item.key())));
    }
    read(path.of(item.key().c_str()), item.value(), mapped);
  }
}

template <class T>
void read_fields(const Path& path, const json& value, T& target) {
  if (!value.is_object()) refuse_type(path, "an object", value);
  size_t known = 0;
  T::fields(target, [&](const char* name, auto& field) {
    using Field = std::remove_reference_t<decltype(field)>;
    const Path here = path.of(name);
    const auto found = value.find(name);
    known += found != value.end() ? 1 : 0;
    constexpr bool required = !std::is_same_v<Field, bool> && !IsVector<Field>::value && !IsOptional<Field>::value;
    if (found == value.end() || (found->is_null() && !std::is_floating_point_v<Field>)) {
      if (required && path.keys == JsonKeys::exact)
        refuse(here, found == value.end() ? "is missing" : "must not be null");
      return;
    }
    read(here, *found, field);
  });
  if (known == value.size() || path.keys == JsonKeys::any) return;
  for (const auto& item : value.items()) {
    bool found = false;
    T::fields(target, [&](const char* name, auto&) { found = found || item.key() == name; });
    if (!found) refuse(path, fmt::format("has an unknown field {}", excerpt(item.key())));
  }
}

template <class T>
void read(const Path& path, const json& value, T& target) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) refuse_type(path, "a boolean", value);
    target = value.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    target = read_integer<T>(path, value);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (value.is_null()) {
      target = std::numeric_limits<T>::quiet_NaN();
      return;
    }
    if (!value.is_number()) refuse_type(path, "a number", value);
    const double number = value.get<double>();
    if (std::abs(number) > std::numeric_limits<T>::max()) refuse(path, fmt::format("is too large: {}", number));
    target = static_cast<T>(number);
  } else if constexpr (std::is_enum_v<T>) {
    static_assert(BoundedEnum<T>, "declare `constexpr E last_enumerator(E)` beside the enum");
    using Raw = std::underlying_type_t<T>;
    const Raw raw = read_integer<Raw>(path, value);
    if (std::cmp_less(raw, 0) || std::cmp_greater(raw, static_cast<Raw>(last_enumerator(T{})))) {
      refuse(path, fmt::format("has no value {}", value.dump()));
    }
    target = static_cast<T>(raw);
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) refuse_type(path, "a string", value);
    target = value.get_ref<const std::string&>();
  } else if constexpr (IsVector<T>::value) {
    target.clear();
    if constexpr (std::is_same_v<typename T::value_type, std::string>) {
      if (value.is_string()) {
        target.push_back(value.get<std::string>());
        return;
      }
    }
    if constexpr (IsKeyed<typename T::value_type>::value) {
      if (value.is_object()) return read_keyed(path, value, target);
    }
    if (!value.is_array()) refuse_type(path, "a list", value);
    target.reserve(value.size());
    for (size_t i = 0; i < value.size(); ++i) read(path.of(i), value[i], target.emplace_back());
  } else if constexpr (IsOptional<T>::value) {
    if (value.is_null()) {
      target.reset();
    } else {
      read(path, value, target.emplace());
    }
  } else if constexpr (IsPair<T>::value) {
    if (!value.is_array() || value.size() != 2) refuse(path, "must be a list of two");
    read(path.of(size_t{0}), value[0], target.first);
    read(path.of(size_t{1}), value[1], target.second);
  } else if constexpr (HasJsonForm<T>) {
    target = {};
    if (const auto problem = target.read_json_form(value)) {
      if (problem->member.empty()) refuse(path, problem->what);
      refuse(path.of(problem->member.c_str()), problem->what);
    }
  } else if constexpr (IsVariant<T>::value) {
    static_assert(std::is_same_v<T, std::variant<std::string, int32_t>>, "no JSON for this variant");
    if (!value.is_string() && !value.is_number()) refuse_type(path, "a string or an integer", value);
    value.is_string() ? read(path, value, target.template emplace<std::string>())
                      : read(path, value, target.template emplace<int32_t>());
  } else if constexpr (HasFields<T>) {
    read_fields(path, value, target);
  } else if constexpr (HasPlain<T>) {
    typename T::Plain plain{};
    read(path, value, plain);
    target = T::from_plain(plain);
  } else {
    static_assert(kUnsupported<T>, "no JSON for this type");
  }
}

}  // namespace json_detail

template <class T>
nlohmann::json to_json_value(const T& value) {
  return json_detail::write(value);
}

// One line of JSON. Text that is not UTF-8 is written with replacement characters.
template <class T>
std::string to_json(const T& value) {
  return to_json_value(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

template <class T>
Result<T> from_json_value(const nlohmann::json& value, JsonKeys keys = JsonKeys::exact) {
  try {
    T target{};
    json_detail::Path path;
    path.keys = keys;
    json_detail::read(path, value, target);
    return target;
  } catch (const json_detail::Refused& refused) {
    return fail("{}", refused.message);
  }
}

template <class T>
Result<T> from_json(std::string_view text, const JsonLimits& limits = {}, JsonKeys keys = JsonKeys::exact) {
  Result<nlohmann::json> value = parse_bounded_json(text, limits);
  if (!value) return tl::unexpected(value.error());
  return from_json_value<T>(*value, keys);
}

}  // namespace lorikeet::comm
