// The evaluator's part for expressions.
#include <algorithm>
#include <array>

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
  if (const auto* undefined = callee.get<Undefined>()) raise("{}", undefined->sentence());
  raise("a {} is called", callee.type_name());
}

const Value* Evaluator::find(const Expression& expression) {
  charge(1);
  switch (expression.kind) {
    case ExpressionKind::constant:
      return &expression.constant;
    case ExpressionKind::name: {
      const Value* value = lookup(expression.name);
      return value->is_undefined() ? nullptr : value;
    }
    case ExpressionKind::attribute: {
      const Value* object = expression.names_key ? find(*expression.children[0]) : nullptr;
      return object != nullptr && object->dict() != nullptr ? object->dict()->find(expression.text) : nullptr;
    }
    case ExpressionKind::item: {
      const Text* key = expression.children[1]->constant.text();
      const bool constant = expression.children[1]->kind == ExpressionKind::constant && key != nullptr;
      const Value* object = constant ? find(*expression.children[0]) : nullptr;
      return object != nullptr && object->dict() != nullptr ? object->dict()->find(key->view()) : nullptr;
    }
    default:
      return nullptr;
  }
}

const Value& Evaluator::see(const Expression& expression, Value& made) {
  if (const Value* there = find(expression)) return *there;
  made = evaluate(expression);
  return made;
}

bool Evaluator::is_true(const Expression& expression) {
  const DepthGuard depth(*this, expression.line);
  switch (expression.kind) {
    case ExpressionKind::logical_not:
      return !is_true(*expression.children[0]);
    case ExpressionKind::logical_and:
      return is_true(*expression.children[0]) && is_true(*expression.children[1]);
    case ExpressionKind::logical_or:
      return is_true(*expression.children[0]) || is_true(*expression.children[1]);
    default: {
      Value made;
      return see(expression, made).truth();
    }
  }
}

// Texts that are added up only to be printed are printed one after the other.
void Evaluator::print_sum(const Expression& expression) {
  constexpr size_t kMost = 12;
  std::array<const Expression*, kMost> terms{};  // the last one first
  size_t count = 0;
  const Expression* rest = &expression;
  for (; rest->kind == ExpressionKind::binary && rest->text == "+" && count + 1 < kMost;
       rest = rest->children[0].get()) {
    terms[count++] = rest->children[1].get();
  }
  terms[count++] = rest;
  std::array<Value, kMost> made;
  std::array<const Value*, kMost> values{};
  bool plain = true;
  for (size_t i = 0; i < count; ++i) {
    values[i] = &see(*terms[count - 1 - i], made[i]);
    plain = plain && values[i]->text() != nullptr && !values[i]->text()->is_markup();
  }
  if (plain) {
    for (size_t i = 0; i < count; ++i) print(*values[i]);
    return;
  }
  Value sum = *values[0];
  for (size_t i = 1; i < count; ++i) sum = binary(*this, "+", sum, *values[i]);
  print(sum);
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
    case ExpressionKind::attribute: {
      Value made;
      const Value& object = see(*children[0], made);
      if (expression.names_key && object.dict() != nullptr) {
        const Value* found = object.dict()->find(expression.text);
        return found != nullptr ? *found : Value(Undefined{{}, &expression.text});
      }
      return attribute_of(object, expression.text);
    }
    case ExpressionKind::item:
      return evaluate_item(expression);
    case ExpressionKind::slice:
      raise("line {}: a slice outside of [ ]", expression.line);
    case ExpressionKind::call:
      return evaluate_call(expression);
    case ExpressionKind::filter:
      return evaluate_filter(expression);
    case ExpressionKind::test: {
      Value made;
      const Value& tested = see(*children[0], made);
      return tests().at(expression.text)(*this, tested, evaluate_arguments(expression.arguments));
    }
    case ExpressionKind::logical_not:
      return !is_true(*children[0]);
    case ExpressionKind::negative:
    case ExpressionKind::positive:
      return evaluate_sign(expression);
    case ExpressionKind::binary: {
      Value made_left, made_right;
      const Value& left = see(*children[0], made_left);
      return binary(*this, expression.text, left, see(*children[1], made_right));
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
      if (is_true(*children[0])) return evaluate(*children[1]);
      if (children[2]) return evaluate(*children[2]);
      return Undefined{"the inline if-expression evaluated to false and no else section was defined"};
  }
  return {};
}

Value Evaluator::evaluate_name(const Expression& expression) const {
  const Value* value = lookup(expression.name);
  const auto* undefined = value->get<Undefined>();
  if (undefined == nullptr || undefined->member != nullptr || !undefined->why.empty()) return *value;
  return Undefined{fmt::format("'{}' is undefined", expression.text)};
}

Value Evaluator::evaluate_item(const Expression& expression) {
  Value made;
  const Value& object = see(*expression.children[0], made);
  const Expression& index = *expression.children[1];
  if (index.kind != ExpressionKind::slice) {
    Value made_index;
    return item_of(object, see(index, made_index));
  }
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
  if (expression.operators.size() == 1) {
    Value made_left, made_right;
    const Value& left = see(*expression.children[0], made_left);
    const Value& right = see(*expression.children[1], made_right);
    if (const List* list = right.list()) charge(list->items.size());
    if (const Text* text = right.text()) charge_bytes(text->size());
    return holds(expression.operators[0], left, right);
  }
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
  for (const auto& child : expression.children) {
    Value made;
    append_text(see(*child, made), &text);
  }
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
    raise("{}", undefined->sentence());
  } else {
    raise("line {}: a sign before a {}", expression.line, value.type_name());
  }
  if (integer == INT64_MIN) raise("line {}: an integer beyond 64 bits", expression.line);
  return negative ? -integer : integer;
}

}  // namespace lorikeet::model::jinja
