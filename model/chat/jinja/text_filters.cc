// Filters of single values: text, numbers, JSON.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/json_text.h"
#include "model/chat/jinja/letter_case.h"
#include "model/chat/jinja/replace.h"

namespace lorikeet::model::jinja {
namespace {

// str() of the input, as most filters of text begin.
Text soft(const Value& value) {
  return value.text() ? *value.text() : to_text(value);
}

template <const char* kMethod>
Value cased(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments(kMethod, arguments, 0, {});
  return in_case(soft(input), kMethod);
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kCapitalize[] = "capitalize", kWords[] = "words";

Value trim(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("trim", arguments, 1, {"chars"});
  const Text text = soft(input);
  const Value* chars = argument(arguments, 0, "chars");
  const bool given = chars && !chars->is_none();
  if (given && !chars->text()) raise("trim needs a string, not a {}", chars->type_name());
  const std::string_view set = given ? chars->text()->view() : std::string_view();
  const Span rest = stripped(text.view(), given ? &set : nullptr, true, true);
  return text.slice(rest.begin, rest.end);
}

Value replace(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("replace", arguments, 3, {"old", "new", "count"});
  const Value *from = argument(arguments, 0, "old"), *to = argument(arguments, 1, "new");
  const Value* count = argument(arguments, 2, "count");
  if (!from || !to) raise("replace needs two strings");
  const Text text = soft(input);
  if (text.is_markup() || soft(*from).is_markup() || soft(*to).is_markup()) {
    raise("replace of text that is marked safe is not served");
  }
  const bool all = !count || count->is_none();
  return replaced(text, soft(*from), soft(*to), all ? -1 : integer_argument(arguments, 2, "count", -1));
}

Value default_value(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("default", arguments, 2, {"default_value", "boolean"});
  const bool also_false = flag_argument(arguments, 1, "boolean", false);
  if (!input.is_undefined() && !(also_false && !input.truth())) return input;
  const Value* otherwise = argument(arguments, 0, "default_value");
  return otherwise ? *otherwise : Value(Text());
}

Value string(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("string", arguments, 0, {});
  return soft(input);
}

Value safe(Evaluator&, const Value& input, const Arguments&) {
  return soft(input).markup();
}

Value escape(Evaluator&, const Value& input, const Arguments&) {
  return soft(input).escaped();
}

Value force_escape(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  const Text text = soft(input);
  return escape(evaluator, Text::as(text, text.bytes()), arguments);
}

Value to_json_filter(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("tojson", arguments, 4, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = flag_argument(arguments, 0, "ensure_ascii", false);
  style.sort_keys = flag_argument(arguments, 3, "sort_keys", false);
  const Value* indent = argument(arguments, 1, "indent");
  if (indent && !indent->is_none()) {
    style.has_indent = true;
    style.item_separator = ",";
    style.indent =
        indent->text()
            ? indent->text()->bytes()
            : std::string(
                  static_cast<size_t>(std::clamp<int64_t>(integer_argument(arguments, 1, "indent", 0), 0, 1024)), ' ');
  }
  if (const Value* separators = argument(arguments, 2, "separators"); separators && !separators->is_none()) {
    const auto pair = iterate(*separators);
    if (pair->items.size() != 2 || !pair->items[0].text() || !pair->items[1].text()) {
      raise("tojson: separators are two strings");
    }
    style.item_separator = pair->items[0].text()->bytes();
    style.key_separator = pair->items[1].text()->bytes();
  }
  return to_json(input, style);
}

Value indent(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("indent", arguments, 3, {"width", "first", "blank"});
  const Value* width = argument(arguments, 0, "width");
  Text prefix;
  if (width && width->text()) {
    prefix = *width->text();
  } else {
    prefix = Text::own(std::string(
        static_cast<size_t>(std::clamp<int64_t>(integer_argument(arguments, 0, "width", 4), 0, 1024)), ' '));
  }
  const bool first = flag_argument(arguments, 1, "first", false), blank = flag_argument(arguments, 2, "blank", false);
  if (!input.text()) raise("indent of a {}", input.type_name());
  const Text& text = *input.text();
  if (text.is_markup()) raise("indent of text that is marked safe is not served");
  // As Jinja: the lines of text + "\n", so that an end of line at the end stays.
  Text with_end = text;
  with_end.append_own("\n");
  Arguments none;
  Value lines;
  call_string_method(with_end, "splitlines", none, &lines);
  Text result;
  for (size_t i = 0; i < lines.list()->items.size(); ++i) {
    const Text& line = *lines.list()->items[i].text();
    if (i > 0) result.append_own("\n");
    if (i > 0 ? (blank || !line.empty()) : first) result.append(prefix);
    result.append(line);
  }
  return result;
}

Value center(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("center", arguments, 1, {"width"});
  Arguments width;
  width.positional.push_back(integer_argument(arguments, 0, "width", 80));
  Value result;
  call_string_method(soft(input), "center", width, &result);
  return result;
}

Value truncate(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("truncate", arguments, 4, {"length", "killwords", "end", "leeway"});
  const Text end = text_argument(arguments, 2, "end", "...");
  const int64_t length = integer_argument(arguments, 0, "length", 255);
  const Value* given = argument(arguments, 3, "leeway");
  const int64_t leeway = given && !given->is_none() ? integer_argument(arguments, 3, "leeway", 5) : 5;
  const auto end_size = static_cast<int64_t>(count_code_points(end.view()));
  if (length < end_size) raise("expected length >= {}, got {}", end_size, length);
  if (leeway < 0) raise("expected leeway >= 0, got {}", leeway);
  const List* list = input.list() && input.list()->kind != List::Kind::generator ? input.list() : nullptr;
  if (!input.text() && !list && !input.dict() && !input.is_undefined()) raise("truncate of a {}", input.type_name());
  const size_t size = input.text()   ? count_code_points(input.text()->view())
                      : list         ? list->items.size()
                      : input.dict() ? input.dict()->items.size()
                                     : 0;
  if (static_cast<int64_t>(size) <= length + leeway) return input;
  if (!input.text()) raise("truncate of a {}", input.type_name());
  const Text& text = *input.text();
  Text kept = text.slice(0, byte_of_code_point(text.view(), static_cast<size_t>(length - end_size)));
  if (!flag_argument(arguments, 1, "killwords", false)) {
    const size_t space = kept.view().rfind(' ');
    if (space != std::string_view::npos) kept = kept.slice(0, space);
  }
  kept.append(end);
  return kept;
}

Value word_count(Evaluator&, const Value& input, const Arguments&) {
  const Text text = soft(input);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size(); at += code_point_length(text.view(), at)) {
    const char32_t c = code_point_at(text.view(), at);
    std::string one;
    append_code_point(c, &one);
    const bool word = c == '_' || is_of_class(one, "isalnum");
    if (word && !inside) ++words;
    inside = word;
  }
  return words;
}

Value format(Evaluator& evaluator, const Value& input, const Arguments& arguments) {
  if (!arguments.named.empty()) raise("format with names is not served");
  return binary(evaluator, "%", soft(input), make_list(arguments.positional, List::Kind::tuple));
}

// What int() and float() read: white space around, single underscores between digits.
std::string number_text(const Text& text) {
  const Span rest = stripped(text.view(), nullptr, true, true);
  std::string digits(text.view().substr(rest.begin, rest.end - rest.begin));
  for (size_t i = 1; i + 1 < digits.size(); ++i) {
    const auto alnum = [&](size_t at) { return std::isalnum(static_cast<unsigned char>(digits[at])); };
    if (digits[i] == '_' && alnum(i - 1) && alnum(i + 1)) digits.erase(i, 1);
  }
  return digits;
}

bool parse_real(const Text& text, double* real) {
  std::string digits = number_text(text);
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return false;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), *real);
  if (parsed.ptr != digits.data() + digits.size()) return false;
  if (parsed.ec == std::errc::result_out_of_range) *real = std::strtod(digits.c_str(), nullptr);
  if (negative) *real = -*real;
  return true;
}

bool real_to_integer(double real, int64_t* integer) {
  if (!std::isfinite(real) || std::abs(real) >= 9.2e18) return false;
  *integer = static_cast<int64_t>(real);
  return true;
}

bool parse_integer(const Text& text, int base, int64_t* integer) {
  std::string digits = number_text(text);
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  constexpr std::pair<int, char> kPrefixes[] = {{2, 'b'}, {8, 'o'}, {16, 'x'}};
  for (const auto& [of, letter] : kPrefixes) {
    const bool fits =
        digits.size() > 2 && digits[0] == '0' && std::tolower(static_cast<unsigned char>(digits[1])) == letter;
    if (fits && base == of) digits.erase(0, 2);
  }
  if (negative) digits.insert(0, "-");
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), *integer, base);
  return parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
}

Value to_integer(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("int", arguments, 2, {"default", "base"});
  const Value* otherwise = argument(arguments, 0, "default");
  const int64_t base = integer_argument(arguments, 1, "base", 10);
  if (base < 2 || base > 36) raise("int: the base is {}", base);
  int64_t integer = 0;
  double real = 0;
  if (const Text* text = input.text()) {
    if (parse_integer(*text, static_cast<int>(base), &integer)) return integer;
    if (parse_real(*text, &real) && real_to_integer(real, &integer)) return integer;
  } else if (const auto* flag = input.get<bool>()) {
    return int64_t{*flag};
  } else if (input.get<int64_t>() || input.get<BigInteger>()) {
    return input;
  } else if (const auto* number = input.get<double>(); number && real_to_integer(*number, &integer)) {
    return integer;
  } else if (const auto* undefined = input.get<Undefined>()) {
    raise("{}", undefined->sentence());
  }
  return otherwise ? *otherwise : Value(int64_t{0});
}

Value to_real(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("float", arguments, 1, {"default"});
  double real = 0;
  if (const Text* text = input.text()) {
    if (parse_real(*text, &real)) return real;
  } else if (const auto* flag = input.get<bool>()) {
    return static_cast<double>(*flag);
  } else if (const auto* integer = input.get<int64_t>()) {
    return static_cast<double>(*integer);
  } else if (input.get<double>()) {
    return input;
  } else if (const auto* undefined = input.get<Undefined>()) {
    raise("{}", undefined->sentence());
  }
  const Value* otherwise = argument(arguments, 0, "default");
  return otherwise ? *otherwise : Value(0.0);
}

Value absolute(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("abs", arguments, 0, {});
  if (const auto* real = input.get<double>()) return std::abs(*real);
  if (const auto* flag = input.get<bool>()) return int64_t{*flag};
  const auto* integer = input.get<int64_t>();
  if (!integer || *integer == INT64_MIN) raise("abs of a {}", input.type_name());
  return *integer < 0 ? -*integer : *integer;
}

Value round(Evaluator&, const Value& input, const Arguments& arguments) {
  check_arguments("round", arguments, 2, {"precision", "method"});
  const int64_t precision = std::clamp<int64_t>(integer_argument(arguments, 0, "precision", 0), -300, 300);
  const Text method = text_argument(arguments, 1, "method", "common");
  double value = 0;
  if (const auto* real = input.get<double>()) {
    value = *real;
  } else if (const auto* integer = input.get<int64_t>()) {
    if (method.view() == "common" && precision >= 0) return *integer;
    value = static_cast<double>(*integer);
  } else if (const auto* flag = input.get<bool>()) {
    if (method.view() == "common" && precision >= 0) return int64_t{*flag};
    value = *flag;
  } else {
    raise("round of a {}", input.type_name());
  }
  if (method.view() == "common") {
    if (!input.get<double>()) raise("round of an integer to tens is not served");
    if (!std::isfinite(value)) return value;
    if (precision < 0) {
      const double scale = std::pow(10.0, static_cast<double>(-precision));
      return std::nearbyint(value / scale) * scale;
    }
    return std::strtod(fmt::format("{:.{}f}", value, precision).c_str(), nullptr);  // the nearest, halves to even
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method.view() == "ceil") return std::ceil(value * scale) / scale;
  if (method.view() == "floor") return std::floor(value * scale) / scale;
  raise("method must be common, ceil or floor");
}

}  // namespace

const FilterTable& text_filters() {
  static const FilterTable table = {
      {"abs", absolute},
      {"capitalize", cased<kCapitalize>},
      {"center", center},
      {"d", default_value},
      {"default", default_value},
      {"e", escape},
      {"escape", escape},
      {"float", to_real},
      {"forceescape", force_escape},
      {"format", format},
      {"indent", indent},
      {"int", to_integer},
      {"lower", cased<kLower>},
      {"replace", replace},
      {"round", round},
      {"safe", safe},
      {"string", string},
      {"title", cased<kWords>},
      {"tojson", to_json_filter},
      {"trim", trim},
      {"truncate", truncate},
      {"upper", cased<kUpper>},
      {"wordcount", word_count},
  };
  return table;
}

const Filter* find_filter(std::string_view name) {
  for (const FilterTable* table : {&text_filters(), &sequence_filters()}) {
    if (const auto found = table->find(name); found != table->end()) return &found->second;
  }
  return nullptr;
}

}  // namespace lorikeet::model::jinja
