// Attributes and methods of values other than strings.
#include <algorithm>
#include <array>

#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/loop.h"

namespace lorikeet::model::jinja {
namespace {

constexpr std::array<std::string_view, 5> kDictMethods = {"items", "keys", "values", "get", "copy"};
// What would change a value is out of reach, as in Jinja's immutable sandbox.
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear", "pop",    "reverse",
                                                          "insert", "sort",  "extend", "remove"};

template <size_t N>
bool has(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value bound_method(const Value& object, std::string_view name) {
  Callable method;
  method.name = name;
  method.call = [object, name = method.name](Evaluator& evaluator, const Arguments& arguments) {
    Value result;
    call_method(evaluator, object, name, arguments, &result);
    return result;
  };
  return std::make_shared<const Callable>(std::move(method));
}

Value unsafe(const Value& object, std::string_view name) {
  return Undefined{fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, object.type_name())};
}

Value dict_method(const std::shared_ptr<const Dict>& dict, std::string_view name, const Arguments& arguments) {
  check_arguments(name, arguments, name == "get" ? 2 : 0, {});
  if (name == "get") {
    if (arguments.positional.empty()) raise("get needs a key");
    const Value& key = arguments.positional[0];
    if (!is_hashable(key)) raise("unhashable type: '{}'", key.type_name());
    if (const Value* found = dict->find(key)) return *found;
    return arguments.positional.size() > 1 ? arguments.positional[1] : Value(None{});
  }
  if (name == "copy") return dict;
  std::vector<Value> items;
  for (const auto& [key, value] : dict->items) {
    items.push_back(name == "items" ? make_list({key, value}, List::Kind::tuple) : name == "keys" ? key : value);
  }
  return make_list(std::move(items), List::Kind::view, "dict_" + std::string(name));
}

Value list_method(const List& list, std::string_view name, const Arguments& arguments) {
  check_arguments(name, arguments, 1, {});
  if (name == "copy") return make_list(list.items, list.kind);
  if (arguments.positional.empty()) raise("{} needs a value", name);
  const auto same = [&](const Value& item) { return equal(item, arguments.positional[0]); };
  if (name == "count") return static_cast<int64_t>(std::count_if(list.items.begin(), list.items.end(), same));
  const auto found = std::find_if(list.items.begin(), list.items.end(), same);
  if (found == list.items.end()) raise("{} is not in list", to_repr(arguments.positional[0]).bytes());
  return static_cast<int64_t>(found - list.items.begin());
}

bool is_list_method(const List& list, std::string_view name) {
  if (list.kind == List::Kind::view || list.kind == List::Kind::generator) return false;
  return name == "index" || name == "count" || (name == "copy" && list.kind == List::Kind::list);
}

Value loop_method(LoopContext& loop, std::string_view name, const Arguments& arguments) {
  if (name == "changed") return loop.changed(make_list(arguments.positional, List::Kind::tuple));
  if (arguments.positional.empty()) raise("no items for cycling given");
  return arguments.positional[loop.index0() % arguments.positional.size()];
}

Value loop_attribute(LoopContext& loop, std::string_view name) {
  const auto number = [](size_t value) { return Value::integer(value); };
  if (name == "index") return number(loop.index0() + 1);
  if (name == "index0") return number(loop.index0());
  if (name == "first") return loop.index0() == 0;
  if (name == "last") return !loop.has_next();
  if (name == "length") return number(loop.length());
  if (name == "revindex") return number(loop.length() - loop.index0());
  if (name == "revindex0") return number(loop.length() - loop.index0() - 1);
  if (name == "previtem") return loop.previous();
  if (name == "nextitem") return loop.following();
  if (name == "depth") return number(1);  // counts recursive loops, which are not served
  if (name == "depth0") return number(0);
  return Undefined{fmt::format("'LoopContext object' has no attribute '{}'", name)};
}

}  // namespace

bool call_method(Evaluator&, const Value& object, std::string_view name, const Arguments& arguments, Value* result) {
  if (const Text* text = object.text()) return call_string_method(*text, name, arguments, result);
  if (const auto* dict = object.get<std::shared_ptr<const Dict>>(); dict && has(kDictMethods, name)) {
    *result = dict_method(*dict, name, arguments);
    return true;
  }
  if (const List* list = object.list(); list && is_list_method(*list, name)) {
    *result = list_method(*list, name, arguments);
    return true;
  }
  if (LoopContext* loop = object.loop(); loop && (name == "cycle" || name == "changed")) {
    *result = loop_method(*loop, name, arguments);
    return true;
  }
  return false;
}

bool is_dict_attribute(std::string_view name) {
  return has(kDictMethods, name) || has(kDictChanges, name) || name.starts_with("__");
}

Value attribute_of(const Value& object, std::string_view name) {
  if (const auto* undefined = object.get<Undefined>()) raise("{}", undefined->sentence());
  if (LoopContext* loop = object.loop()) {
    return name == "cycle" || name == "changed" ? bound_method(object, name) : loop_attribute(*loop, name);
  }
  if (const Namespace* space = object.space()) {
    const auto found = space->attributes.find(name);
    if (found != space->attributes.end()) return found->second;
  }
  const List* list = object.list();
  const bool is_method = object.text()   ? is_string_method(name)
                         : object.dict() ? has(kDictMethods, name)
                                         : list && is_list_method(*list, name);
  if (is_method) return bound_method(object, name);
  if (object.dict() ? has(kDictChanges, name) : list && list->kind == List::Kind::list && has(kListChanges, name)) {
    return unsafe(object, name);
  }
  if (const Dict* dict = object.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  }
  if (name.starts_with("__")) return unsafe(object, name);
  return Undefined{fmt::format("'{} object' has no attribute '{}'", object.type_name(), name)};
}

}  // namespace lorikeet::model::jinja
