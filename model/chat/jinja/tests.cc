// Tests: what stands behind `is`.
#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/letter_case.h"

namespace lorikeet::model::jinja {
namespace {

const Value& other(const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty()) raise("a test needs one argument");
  return arguments.positional[0];
}

template <bool (*kPredicate)(const Value&)>
bool simple(Evaluator&, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() || !arguments.named.empty()) raise("a test that takes no arguments is given some");
  return kPredicate(value);
}

bool is_defined(const Value& value) {
  return !value.is_undefined();
}
bool is_undefined(const Value& value) {
  return value.is_undefined();
}
bool is_none(const Value& value) {
  return value.is_none();
}
bool is_boolean(const Value& value) {
  return value.get<bool>() != nullptr;
}
bool is_true(const Value& value) {
  return value.get<bool>() && *value.get<bool>();
}
bool is_false(const Value& value) {
  return value.get<bool>() && !*value.get<bool>();
}
bool is_integer(const Value& value) {
  return value.get<int64_t>() || value.get<BigInteger>();
}
bool is_float(const Value& value) {
  return value.get<double>() != nullptr;
}
bool is_number(const Value& value) {
  return value.is_number();
}
bool is_string(const Value& value) {
  return value.text() != nullptr;
}
bool is_mapping(const Value& value) {
  return value.dict() != nullptr;
}
bool is_sequence(const Value& value) {
  const List* list = value.list();
  return value.text() || value.dict() || value.is_undefined() ||
         (list && list->kind != List::Kind::generator && list->kind != List::Kind::view);
}
bool is_iterable(const Value& value) {
  return value.text() || value.dict() || value.list() || value.is_undefined() || value.loop();
}
bool is_callable(const Value& value) {
  return value.callable() != nullptr;
}
bool is_lower(const Value& value) {
  return is_of_class(to_text(value).view(), "islower");
}
bool is_upper(const Value& value) {
  return is_of_class(to_text(value).view(), "isupper");
}
bool is_escaped(const Value& value) {
  return value.text() && value.text()->is_markup();
}

bool is_divisible(Evaluator& evaluator, const Value& value, const Value& by) {
  return equal(binary(evaluator, "%", value, by), int64_t{0});
}
bool is_odd(Evaluator& evaluator, const Value& value, const Arguments&) {
  return equal(binary(evaluator, "%", value, int64_t{2}), int64_t{1});
}
bool is_even(Evaluator& evaluator, const Value& value, const Arguments&) {
  return is_divisible(evaluator, value, int64_t{2});
}
bool is_divisible_by(Evaluator& evaluator, const Value& value, const Arguments& arguments) {
  return is_divisible(evaluator, value, other(arguments));
}

bool is_equal(Evaluator&, const Value& value, const Arguments& arguments) {
  return equal(value, other(arguments));
}
bool is_unequal(Evaluator&, const Value& value, const Arguments& arguments) {
  return !equal(value, other(arguments));
}
bool is_less(Evaluator&, const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) < 0;
}
bool is_at_most(Evaluator&, const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) <= 0;
}
bool is_greater(Evaluator&, const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) > 0;
}
bool is_at_least(Evaluator&, const Value& value, const Arguments& arguments) {
  return compare(value, other(arguments)) >= 0;
}
bool is_in(Evaluator&, const Value& value, const Arguments& arguments) {
  return contains(other(arguments), value);
}
bool is_same(Evaluator&, const Value& value, const Arguments& arguments) {
  return value.same_object(other(arguments));
}
bool names_filter(Evaluator&, const Value& value, const Arguments&) {
  return value.text() && is_filter(value.text()->view());
}
bool names_test(Evaluator&, const Value& value, const Arguments&) {
  return value.text() && is_test(value.text()->view());
}

}  // namespace

const std::unordered_map<std::string_view, Test>& tests() {
  static const std::unordered_map<std::string_view, Test> table = {
      {"!=", is_unequal},
      {"<", is_less},
      {"<=", is_at_most},
      {"==", is_equal},
      {">", is_greater},
      {">=", is_at_least},
      {"boolean", simple<is_boolean>},
      {"callable", simple<is_callable>},
      {"defined", simple<is_defined>},
      {"divisibleby", is_divisible_by},
      {"eq", is_equal},
      {"equalto", is_equal},
      {"escaped", simple<is_escaped>},
      {"even", is_even},
      {"false", simple<is_false>},
      {"filter", names_filter},
      {"float", simple<is_float>},
      {"ge", is_at_least},
      {"greaterthan", is_greater},
      {"gt", is_greater},
      {"in", is_in},
      {"integer", simple<is_integer>},
      {"iterable", simple<is_iterable>},
      {"le", is_at_most},
      {"lessthan", is_less},
      {"lower", simple<is_lower>},
      {"lt", is_less},
      {"mapping", simple<is_mapping>},
      {"ne", is_unequal},
      {"none", simple<is_none>},
      {"number", simple<is_number>},
      {"odd", is_odd},
      {"sameas", is_same},
      {"sequence", simple<is_sequence>},
      {"string", simple<is_string>},
      {"test", names_test},
      {"true", simple<is_true>},
      {"undefined", simple<is_undefined>},
      {"upper", simple<is_upper>},
  };
  return table;
}

}  // namespace lorikeet::model::jinja
