// The evaluator's part for expressions.
#include <algorithm>

#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/evaluator.h"
#include "model/chat/jinja/evaluator_guards.h"

namespace lorikeet::model::jinja {
namespace {

bool holds(std::string_view op, const Value& left, const Value& right) {
  if (op == "==") return equal(left, right);
  if (op == "!=") return !equal(left, right);
  if (op == "in") return contains(right, left);
  if (op == "not in") return !contains(right, left);
  const int order = compare(left, right);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  return op == ">" ? order > 0 : order >= 0;
}

}  // namespace

Value Evaluator::call(const Value& callee, const Arguments& arguments) {
  if (const Callable* function = callee.callable()) return function->call(*this, arguments);
  if (const auto* undefined = callee.get<Undefined>()) raise("{}", undefined->why);
  raise("a {} is called", callee.type_name());
}

Value Evaluator::evaluate(const Expression& expression) {
  const DepthGuard depth(*this, expression.line);
  charge(1);
  const auto& children = expression.children;
  switch (expression.kind) {
    case ExpressionKind::constant:
      return expression.constant;
    case ExpressionKind::name:
      return evaluate_name(expression);
    case ExpressionKind::list:
    case ExpressionKind::tuple: {
      std::vector<Value> items;
      for (const auto& child : children) items.push_back(evaluate(*child));
      return make_list(std::move(items),
                       expression.kind == ExpressionKind::list ? List::Kind::list : List::Kind::tuple);
    }
    case ExpressionKind::dict: {
      auto dict = std::make_shared<Dict>();
      for (size_t i = 0; i < children.size(); i += 2) {
        Value key = evaluate(*children[i]);
        if (!is_hashable(key)) raise("line {}: a {} is no key", expression.line, key.type_name());
        dict->set(std::move(key), evaluate(*children[i + 1]));
      }
      return std::shared_ptr<const Dict>(std::move(dict));
    }
    case ExpressionKind::attribute:
      return attribute_of(evaluate(*children[0]), expression.text);
    case ExpressionKind::item:
      return evaluate_item(expression);
    case ExpressionKind::slice:
      raise("line {}: a slice outside of [ ]", expression.line);
    case ExpressionKind::call:
      return evaluate_call(expression);
    case ExpressionKind::filter:
      return evaluate_filter(expression);
    case ExpressionKind::test: {
      const Value tested = evaluate(*children[0]);
      return tests().at(expression.text)(*this, tested, evaluate_arguments(expression.arguments));
    }
    case ExpressionKind::logical_not:
      return !evaluate(*children[0]).truth();
    case ExpressionKind::negative:
    case ExpressionKind::positive:
      return evaluate_sign(expression);
    case ExpressionKind::binary: {
      const Value left = evaluate(*children[0]);
      return binary(*this, expression.text, left, evaluate(*children[1]));
    }
    case ExpressionKind::concat:
      return evaluate_concat(expression);
    case ExpressionKind::comparison:
      return evaluate_comparison(expression);
    case ExpressionKind::logical_and:
    case ExpressionKind::logical_or: {
      Value left = evaluate(*children[0]);
      return left.truth() == (expression.kind == ExpressionKind::logical_or) ? left : evaluate(*children[1]);
    }
    case ExpressionKind::conditional:
      if (evaluate(*children[0]).truth()) return evaluate(*children[1]);
      if (children[2]) return evaluate(*children[2]);
      return Undefined{"the inline if-expression evaluated to false and no else section was defined"};
  }
  return {};
}

Value Evaluator::evaluate_name(const Expression& expression) const {
  const Value* value = lookup(expression.name);
  if (!value->is_undefined() || !value->get<Undefined>()->why.empty()) return *value;
  return Undefined{fmt::format("'{}' is undefined", expression.text)};
}

Value Evaluator::evaluate_item(const Expression& expression) {
  const Value object = evaluate(*expression.children[0]);
  const Expression& index = *expression.children[1];
  if (index.kind != ExpressionKind::slice) return item_of(object, evaluate(index));
  Value parts[3] = {None{}, None{}, None{}};
  for (size_t i = 0; i < 3; ++i) {
    if (index.children[i]) parts[i] = evaluate(*index.children[i]);
  }
  const Value result = slice(object, parts[0], parts[1], parts[2]);
  if (const Text* text = result.text()) charge_bytes(text->size());
  if (const List* list = result.list()) charge(list->items.size());
  return result;
}

Arguments Evaluator::evaluate_arguments(const CallArguments& given) {
  Arguments arguments;
  for (const auto& expression : given.positional) arguments.positional.push_back(evaluate(*expression));
  for (const auto& [name, expression] : given.named) arguments.named.emplace_back(name, evaluate(*expression));
  if (given.more_positional) {
    const auto more = iterate(evaluate(*given.more_positional));
    charge(more->items.size());
    arguments.positional.insert(arguments.positional.end(), more->items.begin(), more->items.end());
  }
  if (given.more_named) {
    const Value more = evaluate(*given.more_named);
    if (!more.dict()) raise("** needs a dict, not a {}", more.type_name());
    for (const auto& [key, value] : more.dict()->items) {
      if (!key.text()) raise("** needs keys that are strings");
      arguments.named.emplace_back(key.text()->bytes(), value);
    }
  }
  for (size_t i = 0; i < arguments.named.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (arguments.named[i].first == arguments.named[j].first) {
        raise("the argument '{}' is given twice", arguments.named[i].first);
      }
    }
    charge(i);
  }
  return arguments;
}

Value Evaluator::evaluate_call(const Expression& expression, const std::pair<std::string, Value>* extra) {
  const Expression& callee = *expression.children[0];
  // A method is called without making a value of it first.
  Value object, function;
  const bool of_object = callee.kind == ExpressionKind::attribute;
  if (of_object) {
    object = evaluate(*callee.children[0]);
  } else {
    function = evaluate(callee);
  }
  Arguments arguments = evaluate_arguments(expression.arguments);
  if (extra) arguments.named.push_back(*extra);
  if (!of_object) return call(function, arguments);
  Value result;
  if (call_method(*this, object, callee.text, arguments, &result)) {
    if (const Text* text = result.text()) charge_bytes(text->size());
    if (const List* list = result.list()) charge(list->items.size());
    return result;
  }
  return call(attribute_of(object, callee.text), arguments);
}

Value Evaluator::evaluate_filter(const Expression& expression, const Value* input) {
  const Expression* inner = expression.children[0].get();
  Value value;
  if (!inner) {
    value = *input;
  } else if (input && inner->kind == ExpressionKind::filter) {
    value = evaluate_filter(*inner, input);
  } else {
    value = evaluate(*inner);
  }
  const Value result = (*find_filter(expression.text))(*this, value, evaluate_arguments(expression.arguments));
  if (const Text* text = result.text()) charge_bytes(text->size());
  if (const List* list = result.list()) charge(list->items.size());
  return result;
}

Value Evaluator::evaluate_comparison(const Expression& expression) {
  Value left = evaluate(*expression.children[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = evaluate(*expression.children[i + 1]);
    if (const List* list = right.list()) charge(list->items.size());
    if (const Text* text = right.text()) charge_bytes(text->size());
    if (!holds(expression.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::evaluate_concat(const Expression& expression) {
  Text text;
  for (const auto& child : expression.children) append_text(evaluate(*child), &text);
  charge_bytes(text.size());
  return text;
}

Value Evaluator::evaluate_sign(const Expression& expression) {
  const Value value = evaluate(*expression.children[0]);
  const bool negative = expression.kind == ExpressionKind::negative;
  if (const auto* real = value.get<double>()) return negative ? -*real : *real;
  int64_t integer = 0;
  if (const auto* flag = value.get<bool>()) {
    integer = *flag;
  } else if (const auto* number = value.get<int64_t>()) {
    integer = *number;
  } else if (const auto* undefined = value.get<Undefined>()) {
    raise("{}", undefined->why);
  } else {
    raise("line {}: a sign before a {}", expression.line, value.type_name());
  }
  if (integer == INT64_MIN) raise("line {}: an integer beyond 64 bits", expression.line);
  return negative ? -integer : integer;
}

}  // namespace lorikeet::model::jinja
