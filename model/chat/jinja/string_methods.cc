// Methods of strings.
#include <algorithm>
#include <array>

#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/letter_case.h"
#include "model/chat/jinja/replace.h"

namespace lorikeet::model::jinja {
namespace {

constexpr std::array<std::string_view, 38> kMethods = {
    "capitalize",   "casefold",   "center",     "count",   "endswith",  "expandtabs", "find",      "format",
    "index",        "isalnum",    "isalpha",    "isascii", "isdecimal", "isdigit",    "islower",   "isnumeric",
    "isspace",      "isupper",    "join",       "ljust",   "lower",     "lstrip",     "partition", "removeprefix",
    "removesuffix", "replace",    "rfind",      "rindex",  "rjust",     "rpartition", "rsplit",    "rstrip",
    "split",        "splitlines", "startswith", "strip",   "title",     "upper"};
constexpr std::array<std::string_view, 2> kMoreMethods = {"swapcase", "zfill"};

constexpr size_t kNotFound = std::string_view::npos;

const Value& first_of(std::string_view name, const Arguments& arguments) {
  if (arguments.positional.empty()) raise("{} needs an argument", name);
  return arguments.positional[0];
}

const Text& first_text(std::string_view name, const Arguments& arguments) {
  const Value& value = first_of(name, arguments);
  if (!value.text()) raise("{} needs a string, not a {}", name, value.type_name());
  return *value.text();
}

// The part that start and end (in code points) leave of the text.
Span part_of(const Text& text, const Arguments& arguments) {
  if (arguments.positional.size() < 2) return {0, text.size()};
  const auto past = [&](int64_t size) {
    const Value* start = argument(arguments, 1, "");
    return start && !start->is_none() && integer_argument(arguments, 1, "an index", 0) > size;
  };
  const auto size = static_cast<int64_t>(count_code_points(text.view()));
  const auto byte = [&](size_t place, int64_t otherwise) {
    const Value* value = argument(arguments, place, "");
    const int64_t at = value && !value->is_none() ? integer_argument(arguments, place, "an index", 0) : otherwise;
    return byte_of_code_point(text.view(), static_cast<size_t>(std::clamp<int64_t>(at < 0 ? at + size : at, 0, size)));
  };
  if (past(size)) return {text.size() + 1, text.size()};  // there not even the empty string is found
  return {byte(1, 0), byte(2, size)};
}

Value strip(const Text& text, std::string_view name, const Arguments& arguments) {
  const Value* chars = argument(arguments, 0, "chars");
  const bool given = chars && !chars->is_none();
  if (given && !chars->text()) raise("{} needs a string, not a {}", name, chars->type_name());
  const std::string_view set = given ? chars->text()->view() : std::string_view();
  const Span rest = stripped(text.view(), given ? &set : nullptr, name != "rstrip", name != "lstrip");
  return text.slice(rest.begin, rest.end);
}

// The pieces between white space; at most `most` cuts.
std::vector<Value> split_spaces(const Text& text, int64_t most, bool from_right) {
  std::vector<Value> pieces;
  Span rest = stripped(text.view(), nullptr, true, true);
  const std::string_view bytes = text.view();
  while (rest.begin < rest.end) {
    if (most-- == 0) {  // the rest keeps the white space at its far end
      pieces.push_back(from_right ? text.slice(0, rest.end) : text.slice(rest.begin, text.size()));
      break;
    }
    size_t cut = kNotFound;  // the first white space of the rest, or the end of the last
    for (size_t at = rest.begin; at < rest.end; at += code_point_length(bytes, at)) {
      if (!is_space(code_point_at(bytes, at))) continue;
      cut = at + (from_right ? code_point_length(bytes, at) : 0);
      if (!from_right) break;
    }
    if (cut == kNotFound) cut = from_right ? rest.begin : rest.end;
    pieces.push_back(from_right ? text.slice(cut, rest.end) : text.slice(rest.begin, cut));
    if (from_right) {
      rest.end = rest.begin + stripped(bytes.substr(rest.begin, cut - rest.begin), nullptr, false, true).end;
    } else {
      rest.begin = cut + stripped(bytes.substr(cut, rest.end - cut), nullptr, true, false).begin;
    }
  }
  if (from_right) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

Value split(const Text& text, std::string_view name, const Arguments& arguments) {
  check_arguments(name, arguments, 2, {"sep", "maxsplit"});
  const Value* separator = argument(arguments, 0, "sep");
  int64_t most = integer_argument(arguments, 1, "maxsplit", -1);
  const bool from_right = name == "rsplit" && most >= 0;
  if (!separator || separator->is_none()) return make_list(split_spaces(text, most, from_right));
  if (!separator->text()) raise("{} needs a string, not a {}", name, separator->type_name());
  const std::string_view by = separator->text()->view(), bytes = text.view();
  if (by.empty()) raise("empty separator");
  std::vector<Value> pieces;
  if (from_right) {
    size_t end = bytes.size();
    for (; most != 0; --most) {
      const size_t at = end < by.size() ? kNotFound : bytes.rfind(by, end - by.size());
      if (at == kNotFound) break;
      pieces.push_back(text.slice(at + by.size(), end));
      end = at;
    }
    pieces.push_back(text.slice(0, end));
    std::reverse(pieces.begin(), pieces.end());
    return make_list(std::move(pieces));
  }
  size_t begin = 0;
  for (; most != 0; --most) {
    const size_t at = bytes.find(by, begin);
    if (at == kNotFound) break;
    pieces.push_back(text.slice(begin, at));
    begin = at + by.size();
  }
  pieces.push_back(text.slice(begin, bytes.size()));
  return make_list(std::move(pieces));
}

Value partition(const Text& text, std::string_view name, const Arguments& arguments) {
  const Text& by = first_text(name, arguments);
  if (by.empty()) raise("empty separator");
  const bool right = name == "rpartition";
  const size_t at = right ? text.view().rfind(by.view()) : text.view().find(by.view());
  std::vector<Value> parts = {text, Text(), Text()};
  if (at == kNotFound) {
    if (right) std::swap(parts[0], parts[2]);
  } else {
    parts = {text.slice(0, at), text.slice(at, at + by.size()), text.slice(at + by.size(), text.size())};
  }
  return make_list(std::move(parts), List::Kind::tuple);
}

Value split_lines(const Text& text, const Arguments& arguments) {
  const bool keep = flag_argument(arguments, 0, "keepends", false);
  std::vector<Value> lines;
  const std::string_view bytes = text.view();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const char32_t c = code_point_at(bytes, at);
    size_t next = at + code_point_length(bytes, at);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (ends) {
      if (c == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
      lines.push_back(text.slice(begin, keep ? next : at));
      begin = next;
    }
    at = next;
  }
  if (begin < bytes.size()) lines.push_back(text.slice(begin, bytes.size()));
  return make_list(std::move(lines));
}

bool starts_or_ends(const Text& text, std::string_view name, const Arguments& arguments) {
  const Value& wanted = first_of(name, arguments);
  const Span part = part_of(text, arguments);
  const bool within = part.begin <= part.end;
  const std::string_view bytes = within ? text.view().substr(part.begin, part.end - part.begin) : std::string_view();
  const auto fits = [&](const Value& one) {
    if (!one.text()) raise("{} needs a string or a tuple of strings, not a {}", name, one.type_name());
    if (!within) return false;
    return name == "startswith" ? bytes.starts_with(one.text()->view()) : bytes.ends_with(one.text()->view());
  };
  const List* tuple = wanted.list() && wanted.list()->kind == List::Kind::tuple ? wanted.list() : nullptr;
  return tuple ? std::any_of(tuple->items.begin(), tuple->items.end(), fits) : fits(wanted);
}

Value find(const Text& text, std::string_view name, const Arguments& arguments) {
  const std::string_view wanted = first_text(name, arguments).view();
  const Span part = part_of(text, arguments);
  if (part.begin > part.end) {
    if (name.ends_with("index")) raise("substring not found");
    return int64_t{-1};
  }
  const std::string_view bytes = text.view().substr(part.begin, part.end - part.begin);
  const size_t at = name.starts_with('r') ? bytes.rfind(wanted) : bytes.find(wanted);
  if (at != kNotFound) return Value::integer(count_code_points(text.view().substr(0, part.begin + at)));
  if (name.ends_with("index")) raise("substring not found");
  return int64_t{-1};
}

Value count(const Text& text, const Arguments& arguments) {
  const std::string_view wanted = first_text("count", arguments).view();
  const Span part = part_of(text, arguments);
  if (part.begin > part.end) return int64_t{0};
  const std::string_view bytes = text.view().substr(part.begin, part.end - part.begin);
  if (wanted.empty()) return Value::integer(count_code_points(bytes) + 1);
  int64_t found = 0;
  for (size_t at = bytes.find(wanted); at != kNotFound; at = bytes.find(wanted, at + wanted.size())) ++found;
  return found;
}

Value join(const Text& separator, const Arguments& arguments) {
  const auto list = iterate(first_of("join", arguments));
  Text result;
  for (size_t i = 0; i < list->items.size(); ++i) {
    if (!list->items[i].text())
      raise("sequence item {}: expected str instance, {} found", i, list->items[i].type_name());
    if (i > 0) result.append(separator);
    result.append(*list->items[i].text());
  }
  return result;
}

Value pad(const Text& text, std::string_view name, const Arguments& arguments) {
  constexpr int64_t kWidest = 1 << 20;
  const int64_t width = integer_argument(arguments, 0, "width", 0);
  const Text fill = text_argument(arguments, 1, "fillchar", name == "zfill" ? "0" : " ");
  if (width > kWidest) raise("{} wider than {}", name, kWidest);
  if (count_code_points(fill.view()) != 1) raise("the fill character must be exactly one character long");
  const auto size = static_cast<int64_t>(count_code_points(text.view()));
  const int64_t missing = std::max<int64_t>(0, width - size);
  int64_t left = name == "rjust" || name == "zfill" ? missing : 0;
  if (name == "center") left = missing / 2 + (missing & width & 1);
  Text result;
  const bool has_sign = name == "zfill" && (text.view().starts_with('-') || text.view().starts_with('+'));
  if (has_sign) result.append(text.slice(0, 1));
  for (int64_t i = 0; i < left; ++i) result.append(fill);
  result.append(text.slice(has_sign ? 1 : 0, text.size()));
  for (int64_t i = left; i < missing; ++i) result.append(fill);
  return result;
}

Value expand_tabs(const Text& text, const Arguments& arguments) {
  const int64_t size = std::min<int64_t>(integer_argument(arguments, 0, "tabsize", 8), 1024);
  Text result;
  int64_t column = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = code_point_length(text.view(), at);
    const char c = text.view()[at];
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      result.append_own(std::string(static_cast<size_t>(spaces), ' '));
      column += spaces;
    } else {
      result.append(text.slice(at, at + length));
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    at += length;
  }
  return result;
}

// "{} {1} {name}", without formats or attributes.
Value format(const Text& text, const Arguments& arguments) {
  Text result;
  size_t automatic = 0;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t brace = std::min(bytes.find_first_of("{}", at), bytes.size());
    result.append(text.slice(at, brace));
    if (brace == bytes.size()) break;
    if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {
      result.append(text.slice(brace, brace + 1));
      at = brace + 2;
      continue;
    }
    const size_t end = bytes[brace] == '{' ? bytes.find('}', brace) : kNotFound;
    if (end == kNotFound) raise("a single brace in a format string");
    const std::string field = bytes.substr(brace + 1, end - brace - 1);
    const bool digits = std::all_of(field.begin(), field.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (digits && field.size() > 4) raise("the format field {{{}}} is not served", field.substr(0, 80));
    const size_t place = !digits ? kNotFound : field.empty() ? automatic++ : static_cast<size_t>(std::stoi(field));
    const Value* value = argument(arguments, place, digits ? std::string_view() : std::string_view(field));
    if (!value) raise("there is no value for the format field {{{}}}", field.substr(0, 80));
    append_text(*value, &result);
    at = end + 1;
  }
  return result;
}

}  // namespace

Text replaced(const Text& text, const Text& from, const Text& to, int64_t most) {
  Text result;
  size_t begin = 0;
  const std::string_view bytes = text.view();
  while (most != 0) {
    const size_t at = from.empty() ? begin : bytes.find(from.view(), begin);
    if (at == kNotFound || at > bytes.size()) break;
    result.append(text.slice(begin, at));
    result.append(to);
    begin = at + from.size();
    --most;
    if (from.empty()) {  // between all characters
      if (begin == bytes.size()) break;
      const size_t length = code_point_length(bytes, begin);
      result.append(text.slice(begin, begin + length));
      begin += length;
    }
  }
  result.append(text.slice(begin, bytes.size()));
  return result;
}

bool is_string_method(std::string_view name) {
  return std::find(kMethods.begin(), kMethods.end(), name) != kMethods.end() ||
         std::find(kMoreMethods.begin(), kMoreMethods.end(), name) != kMoreMethods.end();
}

bool call_string_method(const Text& text, std::string_view name, const Arguments& arguments, Value* result) {
  if (!is_string_method(name)) return false;
  if (text.is_markup()) raise("methods of text that is marked safe are not served");
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    *result = strip(text, name, arguments);
  } else if (name == "split" || name == "rsplit") {
    *result = split(text, name, arguments);
  } else if (name == "startswith" || name == "endswith") {
    *result = starts_or_ends(text, name, arguments);
  } else if (name == "replace") {
    if (arguments.positional.size() < 2) raise("replace needs two strings");
    *result = replaced(text, text_argument(arguments, 0, "old", ""), text_argument(arguments, 1, "new", ""),
                       integer_argument(arguments, 2, "count", -1));
  } else if (name == "find" || name == "rfind" || name == "index" || name == "rindex") {
    *result = find(text, name, arguments);
  } else if (name == "partition" || name == "rpartition") {
    *result = partition(text, name, arguments);
  } else if (name == "removeprefix" || name == "removesuffix") {
    const std::string_view part = first_text(name, arguments).view();
    const bool front = name == "removeprefix";
    const bool there = front ? text.view().starts_with(part) : text.view().ends_with(part);
    *result = !there ? text : front ? text.slice(part.size(), text.size()) : text.slice(0, text.size() - part.size());
  } else if (name == "splitlines") {
    *result = split_lines(text, arguments);
  } else if (name == "join") {
    *result = join(text, arguments);
  } else if (name == "count") {
    *result = count(text, arguments);
  } else if (name == "center" || name == "ljust" || name == "rjust" || name == "zfill") {
    *result = pad(text, name, arguments);
  } else if (name == "format") {
    *result = format(text, arguments);
  } else if (name == "expandtabs") {
    *result = expand_tabs(text, arguments);
  } else if (name.starts_with("is")) {
    *result = is_of_class(text.view(), name);
  } else {
    *result = in_case(text, name);
  }
  return true;
}

}  // namespace lorikeet::model::jinja
