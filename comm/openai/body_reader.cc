#include "comm/openai/body_reader.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <utility>

#include "comm/client/limits.h"
#include "comm/codec/bounded_json.h"

namespace lorikeet::comm {
namespace {

using nlohmann::json;

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53: doubles below it that are whole are what was written

const json& null_value() {
  static const json null;
  return null;
}

bool is_neutral(const json& value) {
  if (value.is_number()) return value == 0;
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();  // null, {} and []
}

// An integer that no int64_t holds, or one past the range that was written, or read, as a float: 1e30.
bool is_integer_beyond(const json& value, int64_t least, int64_t most) {
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const auto number = value.get<double>();
  return number == std::trunc(number) && (number < static_cast<double>(least) || number > static_cast<double>(most));
}

}  // namespace

std::optional<int64_t> integer_of(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return std::in_range<int64_t>(number) ? std::optional<int64_t>(static_cast<int64_t>(number)) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const auto number = value.get<double>();
  if (!(std::abs(number) < kExactIntegers) || number != std::trunc(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

BodyReader::BodyReader(std::string_view body) : written_(body) {
  auto parsed = parse_bounded_json(body, kBodyLimits);
  if (!parsed) {
    refuse(std::nullopt, "the body: " + parsed.error().message);
  } else if (!parsed->is_object()) {
    refuse(std::nullopt, fmt::format("the body must be an object, not {}", json_type_name(*parsed)));
  } else {
    body_ = *std::move(parsed);
  }
}

void BodyReader::refuse(std::optional<std::string> param, std::string sentence) {
  if (!error_) error_ = OpenAiError{400, std::move(sentence), std::move(param), "invalid_request"};
}

const json& BodyReader::value(const char* name) {
  known_.insert(name);
  const auto found = body_.find(name);
  return found == body_.end() ? null_value() : *found;
}

std::optional<int64_t> BodyReader::integer(const char* name, int64_t least, int64_t most) {
  const json& given = value(name);
  if (given.is_null()) return std::nullopt;
  const auto number = integer_of(given);
  if (!number && is_integer_beyond(given, least, most)) {
    refuse(name, fmt::format("{} is {}, not in {} .. {}", name, given.dump(), least, most));
  } else if (!number) {
    refuse(name, fmt::format("{} must be an integer, not {}", name,
                             given.is_number() ? given.dump() : std::string(json_type_name(given))));
  } else if (*number < least || *number > most) {
    refuse(name, fmt::format("{} is {}, not in {} .. {}", name, *number, least, most));
    return std::nullopt;
  }
  return number;
}

std::optional<double> BodyReader::number(const char* name) {
  const json& given = value(name);
  if (given.is_null()) return std::nullopt;
  if (!given.is_number()) {
    refuse(name, fmt::format("{} must be a number, not {}", name, json_type_name(given)));
    return std::nullopt;
  }
  return given.get<double>();
}

std::optional<std::string> BodyReader::text(const char* name) {
  const json& given = value(name);
  if (given.is_null()) return std::nullopt;
  if (!given.is_string()) {
    refuse(name, fmt::format("{} must be a string, not {}", name, json_type_name(given)));
    return std::nullopt;
  }
  return given.get<std::string>();
}

bool BodyReader::boolean(const char* name, bool otherwise) {
  const json& given = value(name);
  if (given.is_null()) return otherwise;
  if (!given.is_boolean()) {
    refuse(name, fmt::format("{} must be true or false, not {}", name, json_type_name(given)));
    return otherwise;
  }
  return given.get<bool>();
}

std::vector<int32_t> BodyReader::integers(const char* name) {
  std::vector<int32_t> list;
  const json& given = value(name);
  if (given.is_null()) return list;
  if (!given.is_array()) {
    refuse(name, fmt::format("{} must be a list of integers, not {}", name, json_type_name(given)));
    return list;
  }
  for (const json& element : given) {
    const auto number = integer_of(element);
    if (!number || !std::in_range<int32_t>(*number)) {
      refuse(name, fmt::format("{} must be a list of integers of 32 bits; element {} is none", name, list.size()));
      return {};
    }
    list.push_back(static_cast<int32_t>(*number));
  }
  return list;
}

std::vector<std::string> BodyReader::texts(const char* name) {
  std::vector<std::string> list;
  const json& given = value(name);
  if (given.is_null()) return list;
  if (given.is_string()) return {given.get<std::string>()};
  if (!given.is_array()) {
    refuse(name, fmt::format("{} must be a string or a list of strings, not {}", name, json_type_name(given)));
    return list;
  }
  for (const json& element : given) {
    if (!element.is_string()) {
      refuse(name,
             fmt::format("{} must be a list of strings; element {} is {}", name, list.size(), json_type_name(element)));
      return {};
    }
    list.push_back(element.get<std::string>());
  }
  return list;
}

std::vector<std::pair<int32_t, double>> BodyReader::biases(const char* name) {
  std::vector<std::pair<int32_t, double>> list;
  const json& given = value(name);
  if (given.is_null()) return list;
  if (!given.is_object()) {
    refuse(name, fmt::format("{} must be an object of token ids and numbers, not {}", name, json_type_name(given)));
    return list;
  }
  for (const auto& item : given.items()) {
    int32_t id = 0;
    const char* end = item.key().data() + item.key().size();
    const auto parsed = std::from_chars(item.key().data(), end, id);
    if (parsed.ec != std::errc() || parsed.ptr != end || !item.value().is_number()) {
      refuse(name, fmt::format("{} must be an object of token ids and numbers; {} is none", name, excerpt(item.key())));
      return {};
    }
    list.emplace_back(id, item.value().get<double>());
  }
  return list;
}

void BodyReader::ignore(std::initializer_list<const char*> names) {
  for (const char* name : names) known_.insert(name);
}

void BodyReader::refuse_unless_neutral(const char* name) {
  if (!is_neutral(value(name))) refuse(name, fmt::format("{} is not served here; leave it out", name));
}

std::vector<std::string> BodyReader::unknown() const {
  constexpr size_t kMost = 16;
  std::vector<std::string> names;
  for (const auto& item : body_.items()) {
    if (names.size() < kMost && !known_.contains(item.key())) names.push_back(excerpt(item.key()));
  }
  return names;
}

}  // namespace lorikeet::comm
