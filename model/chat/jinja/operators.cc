// Operators, indices and iteration, as Python's values have them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "model/chat/jinja/builtins.h"

namespace lorikeet::model::jinja {
namespace {

constexpr size_t kMaxRepeated = 16 << 20;  // bytes or items that * may make

[[noreturn]] void unsupported(std::string_view op, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (const auto* undefined = value->get<Undefined>()) raise("{}", undefined->sentence());
  }
  raise("unsupported operand type(s) for {}: '{}' and '{}'", op, left.type_name(), right.type_name());
}

// An integer or a flag; false for others.
bool as_integer(const Value& value, int64_t* integer) {
  if (const auto* flag = value.get<bool>()) {
    *integer = *flag;
  } else if (const auto* number = value.get<int64_t>()) {
    *integer = *number;
  } else {
    return false;
  }
  return true;
}

bool as_real(const Value& value, double* real) {
  int64_t integer = 0;
  if (const auto* number = value.get<double>()) {
    *real = *number;
  } else if (as_integer(value, &integer)) {
    *real = static_cast<double>(integer);
  } else {
    return false;
  }
  return true;
}

// value: of the operation that `overflow` is the outcome of.
int64_t checked(bool overflow, const int64_t& value) {
  if (overflow) raise("an integer beyond 64 bits");
  return value;
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (bool first = true; exponent > 0; exponent /= 2, first = false) {
    if (!first) base = checked(__builtin_mul_overflow(base, base, &base), base);
    if (exponent % 2 == 1) result = checked(__builtin_mul_overflow(result, base, &result), result);
  }
  return result;
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) raise("integer division or modulo by zero");
  if (b == -1) return checked(a == INT64_MIN, a == INT64_MIN ? 0 : -a);
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

Value integer_operation(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+") return checked(__builtin_add_overflow(a, b, &result), result);
  if (op == "-") return checked(__builtin_sub_overflow(a, b, &result), result);
  if (op == "*") return checked(__builtin_mul_overflow(a, b, &result), result);
  if (op == "//") return floor_divide(a, b);
  if (op == "%") return b == -1 ? int64_t{0} : a - b * floor_divide(a, b);
  if (op == "**" && b >= 0) return power(a, b);
  if (op == "**") {
    if (a == 0) raise("zero to a negative power");
    return std::pow(static_cast<double>(a), static_cast<double>(b));
  }
  if (b == 0) raise("division by zero");
  return static_cast<double>(a) / static_cast<double>(b);
}

Value real_operation(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    if (a == 0 && b < 0) raise("zero to a negative power");
    if (a < 0 && b != std::floor(b)) raise("a complex number");
    return std::pow(a, b);
  }
  if (b == 0) raise("float division by zero");
  if (op == "/") return a / b;
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (op == "%") return rest == 0 ? std::copysign(0.0, b) : rest;
  const double quotient = (a - rest) / b;
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Value repeat(const Value& what, int64_t times) {
  const size_t size = what.text() ? what.text()->size() : what.list()->items.size();
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (size > 0 && count > kMaxRepeated / size) raise("more than {} bytes or items by *", kMaxRepeated);
  if (const Text* text = what.text()) {
    Text result;
    for (size_t i = 0; i < count && size > 0; ++i) result.append(*text);
    return text->is_markup() ? result.markup() : result;
  }
  std::vector<Value> items;
  for (size_t i = 0; i < count && size > 0; ++i) {
    items.insert(items.end(), what.list()->items.begin(), what.list()->items.end());
  }
  return make_list(std::move(items), what.list()->kind);
}

bool can_repeat(const Value& value) {
  const List* list = value.list();
  return value.text() || (list && (list->kind == List::Kind::list || list->kind == List::Kind::tuple));
}

Value add_sequences(const Value& left, const Value& right) {
  if (left.text() && right.text()) {
    const bool markup = left.text()->is_markup() || right.text()->is_markup();
    Text text = markup ? left.text()->escaped() : *left.text();
    text.append(markup ? right.text()->escaped() : *right.text());
    return text;
  }
  const List *a = left.list(), *b = right.list();
  if (!a || !b || a->kind != b->kind || !can_repeat(left)) unsupported("+", left, right);
  std::vector<Value> items = a->items;
  items.insert(items.end(), b->items.begin(), b->items.end());
  return make_list(std::move(items), a->kind);
}

// "..." % values, with %s, %d, %r and %%.
Value interpolate(const Text& format, const Value& values) {
  if (format.is_markup()) raise("% on text that is marked safe is not served");
  const List* tuple = values.list() && values.list()->kind == List::Kind::tuple ? values.list() : nullptr;
  size_t used = 0;
  const auto next = [&]() -> const Value& {
    if (tuple ? used >= tuple->items.size() : used > 0) raise("not enough arguments for format string");
    return tuple ? tuple->items[used++] : (++used, values);
  };
  Text result;
  const std::string& bytes = format.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t percent = std::min(bytes.find('%', at), bytes.size());
    result.append(format.slice(at, percent));
    if (percent == bytes.size()) break;
    const char kind = percent + 1 < bytes.size() ? bytes[percent + 1] : '\0';
    int64_t integer = 0;
    if (kind == '%') {
      result.append_own("%");
    } else if (kind == 's') {
      append_text(next(), &result);
    } else if (kind == 'r') {
      result.append(to_repr(next()));
    } else if (const bool number = kind == 'd' || kind == 'i'; number && as_integer(next(), &integer)) {
      result.append_own(std::to_string(integer));
    } else {
      raise("the format %{} is not served, or its value is of another type", kind);
    }
    at = percent + 2;
  }
  // What has items by keys may be left unused.
  const List* list = values.list();
  const bool keyed = values.dict() || values.is_undefined() ||
                     (list && (list->kind == List::Kind::list || list->kind == List::Kind::range));
  if (used < (tuple ? tuple->items.size() : keyed ? 0 : 1)) {
    raise("not all arguments converted during string formatting");
  }
  return result;
}

int64_t bound(const Value& value, int64_t absent, int64_t size, int64_t lowest, int64_t highest) {
  if (value.is_none()) return absent;
  int64_t index = 0;
  if (!as_integer(value, &index)) raise("slice indices must be integers or None");
  return std::clamp(index < 0 ? index + size : index, lowest, highest);
}

}  // namespace

Value binary(Evaluator& evaluator, std::string_view op, const Value& left, const Value& right) {
  int64_t a = 0, b = 0;
  if (as_integer(left, &a) && as_integer(right, &b)) return integer_operation(op, a, b);
  double x = 0, y = 0;
  if (as_real(left, &x) && as_real(right, &y)) return real_operation(op, x, y);
  Value result;
  if (op == "+" && !left.is_number()) {
    result = add_sequences(left, right);
  } else if (op == "*" && can_repeat(left) && as_integer(right, &b)) {
    result = repeat(left, b);
  } else if (op == "*" && can_repeat(right) && as_integer(left, &a)) {
    result = repeat(right, a);
  } else if (op == "%" && left.text()) {
    result = interpolate(*left.text(), right);
  } else {
    unsupported(op, left, right);
  }
  evaluator.charge_bytes(result.text() ? result.text()->size() : 64 * result.list()->items.size());
  return result;
}

bool contains(const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (!item.text()) raise("'in <string>' requires string as left operand, not {}", item.type_name());
    return text->view().find(item.text()->view()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (!is_hashable(item)) raise("unhashable type: '{}'", item.type_name());
    return dict->find(item) != nullptr;
  }
  const auto list = iterate(container);
  return std::any_of(list->items.begin(), list->items.end(), [&](const Value& one) { return equal(one, item); });
}

std::shared_ptr<List> iterate(const Value& value) {
  if (const auto* list = value.get<std::shared_ptr<List>>()) {
    if ((*list)->kind != List::Kind::generator) return *list;
    auto rest = std::make_shared<List>();
    rest->items = std::exchange((*list)->items, {});
    return rest;
  }
  auto list = std::make_shared<List>();
  if (const Text* text = value.text()) {
    for (size_t at = 0; at < text->size();) {
      const size_t length = code_point_length(text->view(), at);
      list->items.push_back(text->slice(at, at + length).plain());
      at += length;
    }
  } else if (const Dict* dict = value.dict()) {
    for (const auto& item : dict->items) list->items.push_back(item.first);
  } else if (!value.is_undefined()) {
    raise("'{}' object is not iterable", value.type_name());
  }
  return list;
}

Value slice(const Value& object, const Value& begin, const Value& end, const Value& step) {
  if (const auto* undefined = object.get<Undefined>()) raise("{}", undefined->sentence());
  const Text* text = object.text();
  const List* list = object.list();
  if (!text && (!list || list->kind == List::Kind::generator || list->kind == List::Kind::view)) {
    raise("a {} has no slices", object.type_name());
  }
  int64_t stride = 1;
  if (!step.is_none() && !as_integer(step, &stride)) raise("slice indices must be integers or None");
  if (stride == 0) raise("slice step cannot be zero");
  const auto size = static_cast<int64_t>(text ? count_code_points(text->view()) : list->items.size());
  const int64_t lowest = stride > 0 ? 0 : -1, highest = stride > 0 ? size : size - 1;
  const int64_t first = bound(begin, stride > 0 ? 0 : size - 1, size, lowest, highest);
  const int64_t last = bound(end, stride > 0 ? size : -1, size, lowest, highest);
  if (text && stride == 1) {
    const size_t from = byte_of_code_point(text->view(), static_cast<size_t>(first));
    return text->slice(
        from, from + byte_of_code_point(text->view().substr(from), static_cast<size_t>(std::max(first, last) - first)));
  }
  const std::shared_ptr<List> source = text ? iterate(object) : nullptr;
  const std::vector<Value>& items = text ? source->items : list->items;
  std::vector<Value> taken;
  for (int64_t i = first; stride > 0 ? i < last : i > last;) {
    taken.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (!text) return make_list(std::move(taken), list->kind == List::Kind::tuple ? List::Kind::tuple : List::Kind::list);
  Text result;
  for (const Value& one : taken) result.append(*one.text());
  return text->is_markup() ? result.markup() : result;
}

Value item_of(const Value& object, const Value& key) {
  if (const auto* undefined = object.get<Undefined>()) raise("{}", undefined->sentence());
  if (const Dict* dict = object.dict()) {
    const Value* found = is_hashable(key) ? dict->find(key) : nullptr;
    if (found) return *found;
  }
  int64_t index = 0;
  const List* list = object.list();
  if (list && (list->kind == List::Kind::generator || list->kind == List::Kind::view)) list = nullptr;
  if ((object.text() || list) && as_integer(key, &index)) {
    const auto size = static_cast<int64_t>(list ? list->items.size() : count_code_points(object.text()->view()));
    if (index < 0) index += size;
    if (index < 0 || index >= size) return Undefined{"the index is outside of the sequence"};
    if (list) return list->items[static_cast<size_t>(index)];
    const size_t at = byte_of_code_point(object.text()->view(), static_cast<size_t>(index));
    return object.text()->slice(at, at + code_point_length(object.text()->view(), at));
  }
  if (const Text* name = key.text()) return attribute_of(object, name->view());
  return Undefined{fmt::format("'{} object' has no element {}", object.type_name(), to_repr(key).bytes())};
}

const Value* argument(const Arguments& arguments, size_t place, std::string_view name) {
  if (place < arguments.positional.size()) return &arguments.positional[place];
  for (const auto& [known, value] : arguments.named) {
    if (known == name) return &value;
  }
  return nullptr;
}

int64_t integer_argument(const Arguments& arguments, size_t place, std::string_view name, int64_t otherwise) {
  const Value* value = argument(arguments, place, name);
  if (!value) return otherwise;
  int64_t integer = 0;
  if (!as_integer(*value, &integer)) raise("{} is a {}, not an integer", name, value->type_name());
  return integer;
}

bool flag_argument(const Arguments& arguments, size_t place, std::string_view name, bool otherwise) {
  const Value* value = argument(arguments, place, name);
  return value ? value->truth() : otherwise;
}

Text text_argument(const Arguments& arguments, size_t place, std::string_view name, std::string_view otherwise) {
  const Value* value = argument(arguments, place, name);
  if (!value) return Text::own(std::string(otherwise));
  if (!value->text()) raise("{} is a {}, not a string", name, value->type_name());
  return *value->text();
}

void check_arguments(std::string_view what, const Arguments& arguments, size_t most,
                     std::initializer_list<std::string_view> names) {
  if (arguments.positional.size() > most) raise("{} takes at most {} arguments", what, most);
  for (const auto& [name, value] : arguments.named) {
    const auto known = std::find(names.begin(), names.end(), name);
    if (known == names.end()) raise("{} takes no argument '{}'", what, name);
    if (static_cast<size_t>(known - names.begin()) < arguments.positional.size()) {
      raise("{} got two values for '{}'", what, name);
    }
  }
}

}  // namespace lorikeet::model::jinja
