// What templates find ready: filters, tests, methods of values, functions. Sources: jinja2/filters.py, tests.py,
// sandbox.py; Python's str, list and dict; transformers' chat_template_utils.py.
#pragma once

#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/chat/jinja/evaluator.h"
#include "model/chat/jinja/value.h"

namespace lorikeet::model::jinja {

using Filter = Value (*)(Evaluator&, const Value& input, const Arguments&);
using Test = bool (*)(Evaluator&, const Value& input, const Arguments&);

using FilterTable = std::unordered_map<std::string_view, Filter>;
const FilterTable& text_filters();
const FilterTable& sequence_filters();
const std::unordered_map<std::string_view, Test>& tests();

const Filter* find_filter(std::string_view name);
inline bool is_filter(std::string_view name) {
  return find_filter(name) != nullptr;
}
inline bool is_test(std::string_view name) {
  return tests().contains(name);
}

// object.name, and object[key]: undefined where there is none, an error where `object` is undefined itself.
Value attribute_of(const Value& object, std::string_view name);
Value item_of(const Value& object, const Value& key);
// Whether a dict has an attribute of this name whatever its keys.
bool is_dict_attribute(std::string_view name);
// object.name(arguments) of a value's own methods; false where it has none of that name.
bool call_method(Evaluator& evaluator, const Value& object, std::string_view name, const Arguments& arguments,
                 Value* result);
bool call_string_method(const Text& text, std::string_view name, const Arguments& arguments, Value* result);
bool is_string_method(std::string_view name);

// Functions: range, dict, namespace, cycler, joiner, raise_exception, strftime_now. Undefined for any other name.
Value global_function(std::string_view name);

// The items of what can be iterated over; empties a generator.
std::shared_ptr<List> iterate(const Value& value);
// The same for a loop's head, which a bare iterate(value)->items would not keep alive.
class Items {
 public:
  explicit Items(std::shared_ptr<List> list) : list_(std::move(list)) {}
  auto begin() const { return list_->items.begin(); }
  auto end() const { return list_->items.end(); }

 private:
  std::shared_ptr<List> list_;
};
inline Items items_of(const Value& value) {
  return Items(iterate(value));
}

// left op right: + - * / // % **
Value binary(Evaluator& evaluator, std::string_view op, const Value& left, const Value& right);
bool contains(const Value& container, const Value& item);
Value slice(const Value& object, const Value& begin, const Value& end, const Value& step);

// An argument by its place or name; null where it is absent.
const Value* argument(const Arguments& arguments, size_t place, std::string_view name);
// The same where it must be of a type; the default where it is absent.
int64_t integer_argument(const Arguments& arguments, size_t place, std::string_view name, int64_t otherwise);
bool flag_argument(const Arguments& arguments, size_t place, std::string_view name, bool otherwise);
Text text_argument(const Arguments& arguments, size_t place, std::string_view name, std::string_view otherwise);
// Refuses more than `most` by place, and names beside `names`.
void check_arguments(std::string_view what, const Arguments& arguments, size_t most,
                     std::initializer_list<std::string_view> names);

}  // namespace lorikeet::model::jinja
