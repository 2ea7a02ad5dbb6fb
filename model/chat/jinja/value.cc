#include "model/chat/jinja/value.h"

#include <utf8proc.h>

#include <cmath>
#include <cstdlib>

#include "model/chat/jinja/loop.h"
#include "model/chat/python_json.h"

namespace lorikeet::model::jinja {
namespace {

constexpr int kMaxNesting = 100;
constexpr size_t kFewKeys = 8;  // of a dict: are looked through faster than hashed

struct Number {
  bool is_float = false;
  int64_t integer = 0;
  double real = 0;
};

bool as_number(const Value& value, Number* number) {
  if (const auto* b = value.get<bool>()) {
    *number = {false, *b, static_cast<double>(*b)};
  } else if (const auto* i = value.get<int64_t>()) {
    *number = {false, *i, static_cast<double>(*i)};
  } else if (const auto* d = value.get<double>()) {
    *number = {true, 0, *d};
  } else {
    return false;
  }
  return true;
}

bool is_printable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7F;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return false;
    default:
      return true;
  }
}

std::string quoted(std::string_view text) {
  const bool doubled = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = doubled ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size(); at += code_point_length(text, at)) {
    const char32_t c = code_point_at(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      out += text.substr(at, code_point_length(text, at));
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  return out + quote;
}

void append_repr(const Value& value, Text* out, int depth);

void append_items(const List& list, std::string_view open, std::string_view close, Text* out, int depth) {
  out->append_own(open);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out->append_own(", ");
    append_repr(list.items[i], out, depth + 1);
  }
  out->append_own(close);
}

void append_list(const List& list, Text* out, int depth) {
  switch (list.kind) {
    case List::Kind::list:
      return append_items(list, "[", "]", out, depth);
    case List::Kind::tuple:
      return append_items(list, "(", list.items.size() == 1 ? ",)" : ")", out, depth);
    case List::Kind::range:
      return out->append_own(list.name);
    case List::Kind::view:
      return append_items(list, list.name + "([", "])", out, depth);
    case List::Kind::generator:
      raise("a generator is printed; put |list or |join behind it");
  }
}

void append_repr(const Value& value, Text* out, int depth) {
  if (depth > kMaxNesting) raise("a value is nested deeper than {} levels", kMaxNesting);
  if (const Text* text = value.text()) {
    if (text->is_markup()) out->append_own("Markup(");
    out->append(Text::as(*text, quoted(text->view())));
    if (text->is_markup()) out->append_own(")");
  } else if (const List* list = value.list()) {
    append_list(*list, out, depth);
  } else if (const Dict* dict = value.dict()) {
    out->append_own("{");
    for (size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) out->append_own(", ");
      append_repr(dict->items[i].first, out, depth + 1);
      out->append_own(": ");
      append_repr(dict->items[i].second, out, depth + 1);
    }
    out->append_own("}");
  } else if (value.is_undefined()) {
    out->append_own("Undefined");
  } else {
    append_text(value, out);
  }
}

int sign(bool less, bool greater) {
  return less ? -1 : greater ? 1 : 0;
}

bool is_true_list(const List& list) {
  return list.kind == List::Kind::list;
}

}  // namespace

std::string Undefined::sentence() const {
  return member == nullptr ? why : fmt::format("'dict object' has no attribute '{}'", *member);
}

bool Value::same_object(const Value& other) const {
  if (variant_.index() != other.variant_.index()) return false;
  return std::visit(
      [&](const auto& a) {
        using T = std::remove_cvref_t<decltype(a)>;
        [[maybe_unused]] const auto& b = std::get<T>(other.variant_);
        if constexpr (std::is_same_v<T, None>) return true;
        if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, int64_t> || std::is_same_v<T, double>) return a == b;
        if constexpr (std::is_same_v<T, std::shared_ptr<const Text>>) return a->bytes() == b->bytes();
        if constexpr (std::is_same_v<T, std::shared_ptr<List>> || std::is_same_v<T, std::shared_ptr<const Dict>> ||
                      std::is_same_v<T, std::shared_ptr<Namespace>>) {
          return a == b;
        }
        return false;
      },
      variant_);
}

bool Value::truth() const {
  if (const auto* b = get<bool>()) return *b;
  if (const auto* i = get<int64_t>()) return *i != 0;
  if (const auto* d = get<double>()) return *d != 0;
  if (const Text* t = text()) return !t->empty();
  if (const List* l = list()) return l->kind == List::Kind::generator || !l->items.empty();
  if (const Dict* d = dict()) return !d->items.empty();
  return !is_undefined() && !is_none();
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (get<bool>()) return "bool";
  if (get<int64_t>() || get<BigInteger>()) return "int";
  if (get<double>()) return "float";
  if (text()) return "str";
  if (const List* l = list()) {
    constexpr std::string_view kNames[] = {"list", "tuple", "range", "dict view", "generator"};
    return kNames[static_cast<size_t>(l->kind)];
  }
  if (dict()) return "dict";
  if (space()) return "Namespace";
  return callable() ? "function" : "LoopContext";
}

Value make_list(std::vector<Value> items, List::Kind kind, std::string name) {
  return std::make_shared<List>(List{kind, std::move(items), std::move(name)});
}

size_t Dict::position(std::string_view key) const {
  if (items.size() <= kFewKeys) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (const Text* text = items[i].first.text(); text && text->view() == key) return i;
    }
    return items.size();
  }
  const auto found = by_text_.find(std::string(key));
  return found == by_text_.end() ? items.size() : found->second;
}

size_t Dict::position(const Value& key) const {
  if (const Text* text = key.text()) return position(text->view());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].first.text() && equal(items[i].first, key)) return i;
  }
  return items.size();
}

const Value* Dict::find(std::string_view key) const {
  const size_t at = position(key);
  return at == items.size() ? nullptr : &items[at].second;
}

const Value* Dict::find(const Value& key) const {
  const size_t at = position(key);
  return at == items.size() ? nullptr : &items[at].second;
}

void Dict::set(Value key, Value value) {
  if (const size_t at = position(key); at < items.size()) {
    items[at].second = std::move(value);
    return;
  }
  items.emplace_back(std::move(key), std::move(value));
  if (items.size() <= kFewKeys) return;
  for (size_t i = items.size() == kFewKeys + 1 ? 0 : items.size() - 1; i < items.size(); ++i) {
    if (const Text* text = items[i].first.text()) by_text_.emplace(text->bytes(), i);
  }
}

bool equal(const Value& a, const Value& b) {
  Number x, y;
  if (as_number(a, &x)) {
    if (!as_number(b, &y)) return false;
    return x.is_float || y.is_float ? x.real == y.real : x.integer == y.integer;
  }
  if (const Text* text = a.text()) return b.text() && text->bytes() == b.text()->bytes();
  if (a.is_none() || a.is_undefined()) return a.is_none() ? b.is_none() : b.is_undefined();
  if (const auto* big = a.get<BigInteger>()) return b.get<BigInteger>() && b.get<BigInteger>()->digits == big->digits;
  if (const List* list = a.list()) {
    const List* other = b.list();
    if (list == other) return true;
    if (!other || list->kind != other->kind || list->items.size() != other->items.size()) return false;
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (!equal(list->items[i], other->items[i])) return false;
    }
    return true;
  }
  if (const Dict* dict = a.dict()) {
    const Dict* other = b.dict();
    if (!other || dict->items.size() != other->items.size()) return false;
    for (const auto& [key, value] : dict->items) {
      const Value* there = other->find(key);
      if (!there || !equal(value, *there)) return false;
    }
    return true;
  }
  return a.same_object(b);
}

int compare(const Value& a, const Value& b) {
  Number x, y;
  if (as_number(a, &x) && as_number(b, &y)) {
    if (x.is_float || y.is_float) return sign(x.real<y.real, x.real> y.real);
    return sign(x.integer<y.integer, x.integer> y.integer);
  }
  if (a.text() && b.text()) {
    const int order = a.text()->bytes().compare(b.text()->bytes());  // of UTF-8 as of code points
    return sign(order<0, order> 0);
  }
  const List *p = a.list(), *q = b.list();
  if (p && q && p->kind == q->kind && (is_true_list(*p) || p->kind == List::Kind::tuple)) {
    for (size_t i = 0; i < std::min(p->items.size(), q->items.size()); ++i) {
      if (!equal(p->items[i], q->items[i])) return compare(p->items[i], q->items[i]);
    }
    return sign(p->items.size() < q->items.size(), p->items.size() > q->items.size());
  }
  for (const Value* value : {&a, &b}) {
    if (const auto* undefined = value->get<Undefined>()) raise("{}", undefined->sentence());
  }
  raise("'{}' and '{}' have no order", a.type_name(), b.type_name());
}

bool is_hashable(const Value& value) {
  if (const List* list = value.list()) {
    if (list->kind != List::Kind::tuple) return false;
    for (const Value& item : list->items) {
      if (!is_hashable(item)) return false;
    }
  }
  return !value.dict();
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  return python_float(value);
}

void append_text(const Value& value, Text* out) {
  if (const Text* text = value.text()) {
    out->append(*text);
  } else if (value.is_none()) {
    out->append_own("None");
  } else if (const auto* b = value.get<bool>()) {
    out->append_own(*b ? "True" : "False");
  } else if (const auto* i = value.get<int64_t>()) {
    out->append_own(std::to_string(*i));
  } else if (const auto* d = value.get<double>()) {
    out->append_own(float_text(*d));
  } else if (const auto* big = value.get<BigInteger>()) {
    out->append_own(big->digits);
  } else if (value.list() || value.dict()) {
    append_repr(value, out, 0);
  } else if (!value.is_undefined()) {
    raise("a {} is printed", value.type_name());
  }
}

Text to_text(const Value& value) {
  Text text;
  append_text(value, &text);
  return text;
}

Text to_repr(const Value& value) {
  Text text;
  append_repr(value, &text, 0);
  return text;
}

}  // namespace lorikeet::model::jinja
