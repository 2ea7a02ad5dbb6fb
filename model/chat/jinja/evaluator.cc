// Statements.
#include "model/chat/jinja/evaluator.h"

#include <algorithm>

#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/evaluator_guards.h"
#include "model/chat/jinja/loop.h"

namespace lorikeet::model::jinja {

Evaluator::Evaluator(const Syntax& syntax, const Variables& variables, std::time_t now, Limits limits)
    : syntax_(syntax),
      limits_(limits),
      now_(now),
      loop_name_(name_id("loop")),
      caller_name_(name_id("caller")),
      varargs_name_(name_id("varargs")),
      kwargs_name_(name_id("kwargs")) {
  context_.reserve(syntax.names.size());
  for (const std::string& name : syntax.names) {
    const auto given = variables.find(name);
    context_.push_back(given != variables.end() ? given->second : global_function(name));
  }
}

Evaluator::~Evaluator() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

Text Evaluator::run() {
  Text text;
  out_ = &text;
  scope_ = &open_scope(nullptr);
  begin(syntax_.frame);
  execute(syntax_.body);
  return text;
}

NameId Evaluator::name_id(std::string_view name) const {
  const auto found = std::find(syntax_.names.begin(), syntax_.names.end(), name);
  return found == syntax_.names.end() ? -1 : static_cast<NameId>(found - syntax_.names.begin());
}

Evaluator::Scope& Evaluator::open_scope(Scope* parent) {
  if (free_scopes_.empty()) {
    scopes_.emplace_back();
    free_scopes_.push_back(&scopes_.back());
  }
  Scope& scope = *free_scopes_.back();
  free_scopes_.pop_back();
  scope.parent = parent;
  return scope;
}

void Evaluator::close_scope(Scope& scope, bool of_macro) {
  if (scope.captured) {
    // As Jinja: a macro that outlives the block in which it was defined finds nothing of what that block had set.
    for (size_t i = 0; !of_macro && i < scope.variables.size(); ++i) scope.variables[i].second = Undefined{};
    return;
  }
  scope.variables.clear();
  free_scopes_.push_back(&scope);
}

void Evaluator::define(Scope& scope, NameId name, Value value) {
  for (auto& [known, old] : scope.variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  scope.variables.emplace_back(name, std::move(value));
}

const Value* Evaluator::lookup(NameId name) const {
  for (const Scope* scope = scope_; scope; scope = scope->parent) {
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return &value;
    }
  }
  return &context_[static_cast<size_t>(name)];
}

Value Evaluator::make_namespace(Namespace space) {
  charge(1);
  namespaces_.push_back(std::make_shared<Namespace>(std::move(space)));
  return namespaces_.back();
}

void Evaluator::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    const auto list = iterate(value);
    if (list->items.size() != target.several.size()) {
      raise("{} values where {} are expected", list->items.size(), target.several.size());
    }
    for (size_t i = 0; i < target.several.size(); ++i) assign(target.several[i], list->items[i]);
  } else if (target.attribute.empty()) {
    define(*scope_, target.name, value);
  } else {
    Namespace* space = lookup(target.name)->space();
    if (!space) raise("cannot assign attribute on non-namespace object");
    if (target.attribute.starts_with('_')) raise("a namespace has no attribute \"{}\" to set", target.attribute);
    space->attributes[target.attribute] = value;
  }
}

void Evaluator::print(const Value& value) {
  const size_t before = out_->size();
  append_text(value, out_);
  charge_bytes(out_->size() - before);
  if (out_->size() > limits_.max_output) raise("the template prints more than {} bytes", limits_.max_output);
}

void Evaluator::begin(const FrameNames& frame) {
  for (const NameId name : frame.unset) define(*scope_, name, Undefined{});
}

// The block of a statement that has one.
Evaluator::Flow Evaluator::capture(const Statement& statement, Text* text) {
  Text* const outer = std::exchange(out_, text);
  const auto restore = [&] { out_ = outer; };
  const AtExit guard(restore);
  const ScopeGuard scope(*this, scope_);
  begin(statement.frames[0]);
  return execute(statement.blocks[0]);
}

Evaluator::Flow Evaluator::execute(const Block& block) {
  for (const auto& statement : block) {
    if (const Flow flow = execute(*statement); flow != Flow::go_on) return flow;
  }
  return Flow::go_on;
}

Evaluator::Flow Evaluator::execute(const Statement& statement) {
  const DepthGuard depth(*this, statement.line);
  charge(1);
  switch (statement.kind) {
    case StatementKind::data:
      out_->append(statement.text);
      charge_bytes(statement.text.size());
      if (out_->size() > limits_.max_output) raise("the template prints more than {} bytes", limits_.max_output);
      break;
    case StatementKind::print:
      for (const auto& expression : statement.expressions) {
        if (expression->kind == ExpressionKind::binary && expression->text == "+") {
          print_sum(*expression);
        } else {
          Value made;
          print(see(*expression, made));
        }
      }
      break;
    case StatementKind::if_else:
      return execute_if(statement);
    case StatementKind::for_loop:
      return execute_for(statement);
    case StatementKind::set:
      assign(statement.target, evaluate(*statement.expressions[0]));
      break;
    case StatementKind::set_block: {
      Text text;
      if (const Flow flow = capture(statement, &text); flow != Flow::go_on) return flow;
      Value value = std::move(text);
      if (statement.expressions[0]) value = evaluate_filter(*statement.expressions[0], &value);
      assign(statement.target, value);
      break;
    }
    case StatementKind::macro:
      define(*scope_, statement.name, make_macro(statement, statement.text.bytes()));
      break;
    case StatementKind::call_block:
      execute_call(statement);
      break;
    case StatementKind::filter_block: {
      Text text;
      if (const Flow flow = capture(statement, &text); flow != Flow::go_on) return flow;
      const Value value = std::move(text);
      print(evaluate_filter(*statement.expressions[0], &value));
      break;
    }
    case StatementKind::with:
      return execute_with(statement);
    case StatementKind::generation:
      print(call_macro(statement, "caller", scope_, {}));
      break;
    case StatementKind::break_loop:
      return Flow::break_loop;
    case StatementKind::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::go_on;
}

Evaluator::Flow Evaluator::execute_if(const Statement& statement) {
  for (size_t i = 0; i < statement.blocks.size(); ++i) {
    if (i == statement.expressions.size() || is_true(*statement.expressions[i])) {
      return execute(statement.blocks[i]);
    }
  }
  return Flow::go_on;
}

Evaluator::Flow Evaluator::execute_for(const Statement& statement) {
  Scope* const outer = scope_;
  std::function<bool(const Value&)> passes;
  if (statement.expressions[1]) {
    passes = [this, &statement, outer](const Value& item) {
      const ScopeGuard scope(*this, outer);
      assign(statement.target, item);
      return is_true(*statement.expressions[1]);
    };
  }
  const auto loop = std::make_shared<LoopContext>(iterate(evaluate(*statement.expressions[0])), std::move(passes));
  bool any = false;  // as Jinja counts: a body that was left by break or continue is none
  {
    // One for all turns: a macro that one of them defines sees what the variables are in the turn in which it is called.
    const ScopeGuard scope(*this, outer);
    const FrameNames& frame = statement.frames[0];
    while (loop->advance()) {
      charge(1);
      scope_->variables.clear();
      if (frame.loop) define(*scope_, loop_name_, loop);
      begin(frame);
      assign(statement.target, loop->current());
      const Flow flow = execute(statement.blocks[0]);
      if (flow == Flow::break_loop) break;
      any = any || flow == Flow::go_on;
    }
  }
  if (any || statement.blocks.size() < 2) return Flow::go_on;
  const ScopeGuard scope(*this, outer);
  begin(statement.frames[1]);
  return execute(statement.blocks[1]);
}

Evaluator::Flow Evaluator::execute_with(const Statement& statement) {
  std::vector<Value> values;  // made outside of the block
  for (const auto& expression : statement.expressions) values.push_back(evaluate(*expression));
  const ScopeGuard scope(*this, scope_);
  begin(statement.frames[0]);
  for (size_t i = 0; i < values.size(); ++i) assign(statement.targets[i], values[i]);
  return execute(statement.blocks[0]);
}

void Evaluator::execute_call(const Statement& statement) {
  const std::pair<std::string, Value> caller{"caller", make_macro(statement, "caller")};
  print(evaluate_call(*statement.expressions[0], &caller));
}

Value Evaluator::make_macro(const Statement& statement, std::string name) {
  for (Scope* scope = scope_; scope && !scope->captured; scope = scope->parent) scope->captured = true;
  Callable macro;
  macro.name = name;
  macro.call = [&statement, name = std::move(name), closure = scope_](Evaluator& self, const Arguments& arguments) {
    return self.call_macro(statement, name, closure, arguments);
  };
  return std::make_shared<const Callable>(std::move(macro));
}

Value Evaluator::call_macro(const Statement& statement, const std::string& name, Scope* closure,
                            const Arguments& arguments) {
  const Parameters& parameters = statement.parameters;
  const FrameNames& frame = statement.frames[0];
  const size_t count = parameters.names.size(), given = std::min(count, arguments.positional.size());
  Text text;
  Text* const out = std::exchange(out_, &text);
  Scope* const caller = scope_;
  const auto restore = [&] {
    out_ = out;
    scope_ = caller;
  };
  const AtExit guard(restore);
  const ScopeGuard scope(*this, closure, ScopeGuard::Kind::macro);
  begin(frame);
  auto more_named = arguments.named;
  std::vector<size_t> missing;
  for (size_t i = 0; i < count; ++i) {
    const auto named =
        i < given ? more_named.end() : std::find_if(more_named.begin(), more_named.end(), [&](const auto& argument) {
          return argument.first == parameters.words[i];
        });
    if (i < given) {
      define(*scope_, parameters.names[i], arguments.positional[i]);
    } else if (named != more_named.end()) {
      define(*scope_, parameters.names[i], named->second);
      more_named.erase(named);
    } else {
      define(*scope_, parameters.names[i], Undefined{});
      missing.push_back(i);
    }
  }
  take_rest(statement, name, arguments, std::move(more_named));
  for (const size_t i : missing) {  // a default sees all parameters, those behind it as far as they are given
    const size_t with_default = count - parameters.defaults.size();
    define(*scope_, parameters.names[i],
           i < with_default ? Value(Undefined{fmt::format("parameter '{}' was not provided", parameters.words[i])})
                            : evaluate(*parameters.defaults[i - with_default]));
  }
  execute(statement.blocks[0]);
  return text;
}

// What a macro is given beside its parameters.
void Evaluator::take_rest(const Statement& statement, const std::string& name, const Arguments& arguments,
                          std::vector<std::pair<std::string, Value>> named) {
  const FrameNames& frame = statement.frames[0];
  const size_t count = statement.parameters.names.size();
  if (frame.caller) {
    const auto caller =
        std::find_if(named.begin(), named.end(), [](const auto& argument) { return argument.first == "caller"; });
    const bool none = caller == named.end() || caller->second.is_none();
    define(*scope_, caller_name_, none ? Value(Undefined{"no caller defined"}) : caller->second);
    if (caller != named.end()) named.erase(caller);
  }
  if (frame.kwargs) {
    auto dict = std::make_shared<Dict>();
    for (const auto& [word, value] : named) dict->set(Text::own(word), value);
    define(*scope_, kwargs_name_, std::shared_ptr<const Dict>(std::move(dict)));
  } else if (!named.empty()) {
    raise("macro '{}' takes no keyword argument '{}'", name, named.front().first);
  }
  const bool more = arguments.positional.size() > count;
  if (frame.varargs) {
    const auto first =
        arguments.positional.begin() + static_cast<ptrdiff_t>(more ? count : arguments.positional.size());
    define(*scope_, varargs_name_, make_list({first, arguments.positional.end()}, List::Kind::tuple));
  } else if (more) {
    raise("macro '{}' takes not more than {} argument(s)", name, count);
  }
}

}  // namespace lorikeet::model::jinja
